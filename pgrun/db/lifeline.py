"""The heartbeat's connection: it keeps the lease of one worker from the background thread, whatever the worker's loop does."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio
import psycopg

from pgrun.db._address import Address
from pgrun.db._background import background
from pgrun.db._connection import Connection, connection
from pgrun.db._shielding import to_its_end
from pgrun.db.statements import statement

_log = logging.getLogger("pgrun.worker")

_RETRY = 0.3  # seconds between tries while the database is away


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """What the lifeline asks and tells at each beat; all functions are called in the background thread."""

    params: Callable[[], dict[str, Any]]
    """Gives the parameters of `beat_worker.sql`."""
    on_cancels: Callable[[list[str]], None]
    """Someone asked to cancel these runs of the worker."""
    on_streams: Callable[[list[str]], None]
    """Somebody reads along these runs of the worker."""
    on_dead: Callable[[], None]
    """The worker was declared dead; this was the last beat."""


class Lifeline:
    """Beats until it is cut."""

    def __init__(self, address: Address, schema: str, pulse: Pulse, *, lease: float, interval: float) -> None:
        self._address = address
        self._sql = statement("beat_worker", schema)
        self._pulse = pulse
        self._lease = lease
        self._interval = interval
        self._last = time.monotonic()
        self._task = background.start(self._beat_forever)

    def cut(self) -> None:
        """Stops beating; returns at once."""
        self._task.cancel()

    async def _beat_forever(self) -> None:
        while True:
            try:
                async with connection(self._address, within=self._interval + 5) as conn:
                    while await self._beat(conn):  # noqa: ASYNC110  a beat is not a look for an event
                        await anyio.sleep(self._interval)
                    return
            except (psycopg.Error, OSError) as error:
                silent = time.monotonic() - self._last
                level = logging.WARNING if silent > self._lease else logging.DEBUG
                _log.log(level, "no heartbeat for %.1f s: %s", silent, error)
            await anyio.sleep(_RETRY)

    async def _beat(self, conn: Connection) -> bool:
        cursor = await to_its_end(conn.execute(self._sql, self._pulse.params()), within=self._interval)
        row = await cursor.fetchone()
        self._last = time.monotonic()
        if row is None:
            self._pulse.on_dead()
            return False
        if row["cancels"]:
            self._pulse.on_cancels([str(run_id) for run_id in row["cancels"]])
        if row["streams"]:
            self._pulse.on_streams([str(run_id) for run_id in row["streams"]])
        return True
