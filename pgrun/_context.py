"""A context of its own for a coroutine that has no task of its own."""

import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


@types.coroutine
def in_own_context(coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Awaits a coroutine whose changes of context variables nobody else sees, as if it ran in another task."""
    context = copy_context()
    step: Callable[[], Any] = partial(coroutine.send, None)
    while True:
        try:
            awaited = context.run(step)
        except StopIteration as stop:
            result: T = stop.value
            return result
        try:
            step = partial(coroutine.send, (yield awaited))
        except BaseException as error:
            step = partial(coroutine.throw, error)
