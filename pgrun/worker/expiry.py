"""Ends runs whose time is up while nobody executes them. Every worker looks when the next one is; there is no leader.

Workers hear of new ones by an empty ``pgrun_soon``, and look now and then in case they did not.
"""

import logging

import anyio

from pgrun import events
from pgrun._jitter import uniform
from pgrun.db.verbs import Verbs
from pgrun.errors import PgrunError
from pgrun.settings import Settings

_log = logging.getLogger("pgrun.worker")

_POLLS = 6  # so many times as seldom as runs: one that was not heard of waits that long, one that is known does not


class Expiry:
    """The looks of one worker after runs that have expired or missed their deadline."""

    def __init__(self, verbs: Verbs, settings: Settings) -> None:
        self._verbs = verbs
        self._settings = settings
        self._changed = anyio.Event()

    def wake(self) -> None:
        """There may be a run that expires sooner."""
        self._changed.set()

    async def look_forever(self) -> None:
        """Looks when the next run expires, for as long as the worker lives."""
        while True:
            self._changed = anyio.Event()
            next_look = await self.look()
            pause = _POLLS * self._settings.poll_interval * uniform(0.9, 1.1)
            # A little later, and not all workers at once.
            with anyio.move_on_after(pause if next_look is None else min(pause, next_look + uniform(0.01, 0.05))):
                await self._changed.wait()

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
