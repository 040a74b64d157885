"""The public API without the `a`: one event loop in a thread serves every synchronous caller of the process."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
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
    _refuse_in_loop(f"await {_name_of(function)}(…)")
    future = _thread.start(function, *args)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def serves_sync_callers() -> bool:
    """Whether the running code was called from code without an event loop, by way of `run_sync`."""
    return _thread.is_here()


def iterate_sync(function: Callable[..., AsyncGenerator[T, None]], *args: Any) -> Iterator[T]:
    """What an asynchronous generator yields, for code without an event loop; left early, the generator is closed.

    Raises:
        UsageError: As `run_sync`.
    """
    _refuse_in_loop(f"async for … in {_name_of(function)}(…)")
    return _iterate(function(*args))


def _iterate(items: AsyncGenerator[T, None]) -> Iterator[T]:
    end = object()

    async def next_item() -> Any:
        return await anext(items, end)

    try:
        while (item := run_sync(next_item)) is not end:
            yield item
    finally:
        run_sync(items.aclose)


def _refuse_in_loop(instead: str) -> None:
    try:
        current_token()
    except RuntimeError:
        return  # NoEventLoopError, or asyncio's own in a thread that has inherited the context of anyio.run
    raise UsageError(f"this would block the running event loop; {instead} instead")


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(getattr(function, "func", function), "__name__", "the method")
