"""Ends runs whose time is up while nobody executes them. Every worker looks now and then; there is no leader."""

import logging

import anyio

from pgrun import events
from pgrun._jitter import uniform
from pgrun.db.verbs import Verbs
from pgrun.errors import PgrunError
from pgrun.settings import Settings

_log = logging.getLogger("pgrun.worker")


class Expiry:
    """The looks of one worker after runs that have expired or missed their deadline."""

    def __init__(self, verbs: Verbs, settings: Settings) -> None:
        self._verbs = verbs
        self._settings = settings

    async def look_forever(self) -> None:
        """Looks when the next run expires, as far as it is known, and every poll interval, for those that came since."""
        while True:
            next_look = await self.look()
            pause = self._settings.poll_interval * uniform(0.9, 1.1)
            # A little later, and not all workers at once.
            await anyio.sleep(pause if next_look is None else min(pause, next_look + uniform(0.01, 0.05)))

    async def look(self) -> float | None:
        """Ends what has to end; returns in how many seconds the next run expires, None if none does."""
        try:
            ended, next_look = await self._verbs.expire()
        except PgrunError as error:
            _log.warning("expired runs are not looked for yet: %s", error)
            return None
        if ended:
            events.emit("expired", runs=ended)
            _log.info("ended %s runs that had expired or missed their deadline", ended)
        return next_look
