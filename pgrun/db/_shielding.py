"""Work that is brought to its end although the task that waits for it is cancelled."""

import asyncio  # noqa: TID251  for what no shield of anyio stops: Task.cancel, asyncio.timeout and asyncio.TaskGroup
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work` in a task of its own; a cancellation of the caller is raised when `work` has ended.

    Torn away in the middle, a statement would perhaps be committed and perhaps not, and a connection on its way back into
    the pool would be lost to it for ever. Only the end of ``asyncio.run``, which cancels every task, still does that.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # or asyncio complains that nobody asked for it
    try:
        raise cancelled
    finally:
        del cancelled  # or this frame and the traceback keep each other, and all that hangs on them, alive
