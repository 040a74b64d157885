"""How an attempt reads and writes what it cannot do without: as long as it takes, for it has cost something already."""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from pgrun.db.records import Claimed
from pgrun.errors import DatabaseUnavailable

T = TypeVar("T")

_log = logging.getLogger("pgrun.worker")

_PAUSE = 1.0  # seconds between tries while the database is away


async def patiently(claimed: Claimed, what: str, read: Callable[[], Awaitable[T]]) -> T:
    """Reads what an attempt needs, however long the database is away: should the lease be lost meanwhile, it is stopped."""
    while True:
        try:
            return await read()
        except DatabaseUnavailable as error:
            _log.warning("%r: its %s is not read yet: %s", claimed, what, error)
        await anyio.sleep(_PAUSE)
