"""Which parameter of a task is filled in by pgrun: the one that is annotated with a context."""

import inspect
from collections.abc import Callable
from typing import Any

from pgrun.errors import UsageError
from pgrun.run._parameters import hints_of
from pgrun.run.task_context import SyncTaskContext, TaskContext


def context_parameter(name: str, function: Callable[..., Any]) -> str | None:
    """The name of the parameter for the context, None if there is none.

    Raises:
        UsageError: There are two, or it is of the kind for the other sort of functions.
    """
    hints = hints_of(function, f'task "{name}"')
    found = {key: hint for key, hint in hints.items() if hint in (TaskContext, SyncTaskContext) and key != "return"}
    if len(found) > 1:
        raise UsageError(f'task "{name}": {", ".join(found)} are both the context; one is enough')
    fitting = TaskContext if inspect.iscoroutinefunction(function) else SyncTaskContext
    for key, hint in found.items():
        if hint is not fitting:
            sort = "an async" if fitting is TaskContext else "a plain"
            raise UsageError(f'task "{name}": {key} has to be a {fitting.__name__}, since this is {sort} function')
    return next(iter(found), None)
