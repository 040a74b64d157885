"""Callers that do not wait any longer, and want the run to stop then."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import anyio

from pgrun.errors import PgrunError, WaitTimeout

_PATIENCE = 5.0  # seconds to say that it is not wanted any more


@asynccontextmanager
async def cancelling_if_abandoned(cancel: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Around a wait: if it ends because its time is up, or because the caller is cancelled, the run is cancelled, too."""
    try:
        yield
    except (WaitTimeout, anyio.get_cancelled_exc_class()):
        with anyio.move_on_after(_PATIENCE, shield=True), suppress(PgrunError):
            await cancel()
        raise
