"""Work that is brought to its end although the task that waits for it is cancelled."""

import asyncio  # noqa: TID251  for what no shield of anyio stops: Task.cancel, asyncio.timeout and asyncio.TaskGroup
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import anyio

T = TypeVar("T")

_GRACE = (
    1.0  # seconds in which the server may answer that it has cancelled a statement; then its connection is given up
)


async def to_its_end(work: Coroutine[Any, Any, T], *, within: float | None = None) -> T:
    """Awaits `work` in a task of its own; a cancellation of the caller is raised when `work` has ended.

    Torn away in the middle, a statement would perhaps be committed and perhaps not, and a connection on its way back into
    the pool would be lost to it for ever. Only the end of ``asyncio.run``, which cancels every task, still does that.

    Raises:
        TimeoutError: It has not ended `within` so many seconds, if that was asked for, and was cancelled.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    task = loop.create_task(_tell(work, outcome))
    deadline = None if within is None else loop.call_later(within, _cancel, loop, task)
    try:
        return await outcome
    except asyncio.CancelledError as cancelled:
        if task.cancelled():
            if deadline is not None and loop.time() >= deadline.when():
                raise TimeoutError(f"no answer within {within:g} s") from None
            raise
        await _ended(task)
        if not outcome.cancelled():
            outcome.exception()  # or asyncio complains that nobody asked for it
        try:
            raise
        finally:
            del cancelled
    finally:
        if deadline is not None:
            deadline.cancel()
        del task, outcome  # or this frame and the traceback keep each other, and all that hangs on them, alive


async def _tell(work: Coroutine[Any, Any, T], outcome: asyncio.Future[T]) -> None:
    """Executes `work` and tells whoever still waits; at once, where ``asyncio.shield`` would take a turn of the loop more."""
    try:
        result = await work
    except asyncio.CancelledError:
        outcome.cancel()
        raise
    except BaseException as error:
        if not outcome.done():
            outcome.set_exception(error)
        if not isinstance(error, Exception):
            raise
    else:
        if not outcome.done():
            outcome.set_result(result)
    finally:
        del outcome  # as above


def _cancel(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    task.cancel()
    loop.call_later(_GRACE, task.cancel)


async def _ended(task: asyncio.Task[Any]) -> None:
    """Waits for the end of a task, however often the waiting one is cancelled."""
    with anyio.CancelScope(shield=True):
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
