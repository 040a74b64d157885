"""What was said in the session of a run before it, for an agent that is to remember."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

from pgrun.db.verbs import Claimed, Verbs
from pgrun.errors import DatabaseUnavailable

T = TypeVar("T")

_log = logging.getLogger("pgrun.worker")

_PAUSE = 1.0  # seconds between tries while the database is away


async def read_history(verbs: Verbs, claimed: Claimed, runs: int) -> list[tuple[Any, Any, bool]]:
    """The last so many runs of the session, as `AgentDefinition.messages` wants them."""
    if not runs or claimed.session_id is None:
        return []
    session_id = claimed.session_id
    return await patiently(claimed, "history", lambda: verbs.history(session_id, before=claimed.run_id, runs=runs))


async def patiently(claimed: Claimed, what: str, read: Callable[[], Awaitable[T]]) -> T:
    """Reads what an attempt needs, however long the database is away: should the lease be lost meanwhile, it is stopped."""
    while True:
        try:
            return await read()
        except DatabaseUnavailable as error:
            _log.warning("%r: its %s is not read yet: %s", claimed, what, error)
        await anyio.sleep(_PAUSE)
