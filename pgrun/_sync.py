"""The public API without the `a`: one event loop in a thread serves every synchronous caller of the process."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from anyio.lowlevel import current_token

from pgrun._threads import LoopThread
from pgrun.errors import UsageError

T = TypeVar("T")

_thread = LoopThread("pgrun-sync")


def start_sync(function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
    """Calls a coroutine function without waiting for it; what it raises is lost."""
    _thread.start(function, *args)


def run_sync(function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    """Calls a coroutine function from code without an event loop and waits for its result; Ctrl-C cancels it.

    Raises:
        UsageError: The caller is inside an event loop, which this would block.
    """
    try:
        current_token()
    except RuntimeError:
        pass  # NoEventLoopError, or asyncio's own in a thread that has inherited the context of anyio.run
    else:
        name = getattr(getattr(function, "func", function), "__name__", "the method")
        raise UsageError(f"this would block the running event loop; await {name}(…) instead")
    future = _thread.start(function, *args)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
