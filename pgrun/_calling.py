"""How users' plain functions are called: in a thread, so that none of them stops the event loop."""

import inspect
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread


async def call_in_thread(function: Callable[[], Any], *, may_leave: bool = False) -> Any:
    """What a function returns that is called in a thread; if that is awaitable, what comes of it.

    Args:
        function: What to call.
        may_leave: A cancellation does not wait for the thread, which goes on unheeded.
    """
    # No limit of its own, anyio's is 40 for all: how many are called at once is limited elsewhere, for one by a worker's slots.
    value = await anyio.to_thread.run_sync(function, limiter=anyio.CapacityLimiter(1), abandon_on_cancel=may_leave)
    return await value if inspect.isawaitable(value) else value
