"""What keeps the tables from growing for ever: every worker prunes a little now and then. There is no leader."""

import logging

import anyio

from pgrun import events
from pgrun._jitter import uniform
from pgrun.db.pruning import Prunable, prune
from pgrun.db.verbs import Verbs
from pgrun.errors import PgrunError
from pgrun.settings import Settings

_log = logging.getLogger("pgrun.worker")

_LOOK_EVERY = 60.0  # seconds, more or less: workers that started together drift apart
_MAX_BATCHES = 20  # in one look; more than a worker's own runs, and little enough when a hundred workers find a backlog
_BATCH = 100  # runs whose events go in one transaction: a stream may have thousands


class Retention:
    """The looks of one worker after what may be forgotten: runs and events past their retention, workers long gone."""

    def __init__(self, verbs: Verbs, settings: Settings) -> None:
        self._verbs = verbs
        self._settings = settings

    async def look_forever(self) -> None:
        """Looks about once a minute. The first look comes at random too: of many short-lived workers a few get to it."""
        await anyio.sleep(uniform(0, _LOOK_EVERY))
        while True:
            await self.look()
            await anyio.sleep(_LOOK_EVERY * uniform(0.5, 1.5))

    async def look(self) -> None:
        """Forgets workers, and deletes some of the runs that ended before the retention, if there is one."""
        try:
            await self._verbs.forget_workers()
            await self._prune_events(self._settings.event_retention)
            for status, older_than in self._settings.retentions.items():
                await self._prune_runs(status, older_than)
        except PgrunError as error:
            _log.warning("pruning is put off: %s", error)

    async def _prune_runs(self, status: str | None, older_than: float) -> None:
        which = Prunable(older_than=older_than, status=status)
        if pruned := await prune(self._verbs, which, max_batches=_MAX_BATCHES):
            events.emit("pruned", runs=pruned)
            _log.info("pruned %s runs that ended more than %g s ago", pruned, older_than)

    async def _prune_events(self, older_than: float | None) -> None:
        if older_than is None:
            return
        streams = 0
        for _ in range(_MAX_BATCHES):
            found = await self._verbs.prune_events(older_than, batch=_BATCH)
            streams += found
            if found < _BATCH:
                break
        if streams:
            events.emit("pruned_events", runs=streams)
            _log.info("pruned the events of %s runs that ended more than %g s ago", streams, older_than)
