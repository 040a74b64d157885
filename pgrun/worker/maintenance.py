"""What keeps the queue whole when somebody dies: every worker looks after the others' runs. There is no leader."""

import logging
import time
from collections.abc import Collection

from pgrun import events
from pgrun._jitter import uniform
from pgrun.db.verbs import Verbs
from pgrun.errors import DatabaseError
from pgrun.settings import Settings

_log = logging.getLogger("pgrun.worker")

_SESSIONS_EVERY = 30.0  # seconds between looks for sessions that nobody opened, which is rare
_STRAYS_OLDER_THAN = 5.0  # seconds; time for a claim that has just been answered to be noted


class Maintenance:
    """The looks of one worker after runs that nobody works on."""

    def __init__(self, verbs: Verbs, settings: Settings) -> None:
        self._verbs = verbs
        self._settings = settings
        self._sessions_in = uniform(0, _SESSIONS_EVERY)
        self._strays_at = 0.0

    async def look(self, worker_id: str) -> float:
        """Rescues what can be rescued and returns the seconds until it is worth looking again."""
        # Whoever dies now has beaten within a lease: a look within the next one finds it dead, or says when it will be.
        longest = self._settings.lease
        try:
            rescued, next_lease = await self._verbs.rescue(worker_id)
            for row in rescued:
                events.emit("rescued", run_id=str(row["run_id"]), status=row["status"])
                _log.warning(
                    "rescued %s %s (attempt %s): %s", row["name"], row["run_id"], row["attempt"], row["status"]
                )
            if self._sessions_in <= 0:
                self._sessions_in = _SESSIONS_EVERY
                await self._verbs.open_sessions()
        except DatabaseError as error:
            _log.warning("maintenance is put off: %s", error)
            next_lease = None
        # A little after the lease has run out, and not all workers at once.
        pause = max(longest if next_lease is None else min(next_lease, longest), 0.0) + uniform(0.02, 0.2)
        self._sessions_in -= pause
        return pause

    async def give_back_strays(self, worker_id: str, held: Collection[tuple[str, int]], claiming_for: float) -> None:
        """Releases runs that the database says this worker holds, but that it does not execute.

        Not only after a failure: a lost claim is repeated without a word, and one that was given up on a dead network may
        be executed when the network is back. At most once a lease, because it is rare.

        Args:
            worker_id: The worker.
            held: What it executes, as pairs of run_id and fence; looked at when the database has answered.
            claiming_for: For how many seconds a claim of its has been under way, whose runs are not among `held` yet.
        """
        if time.monotonic() < self._strays_at:
            return
        self._strays_at = time.monotonic() + self._settings.lease
        try:
            strays = await self._verbs.strays(worker_id, claiming_for + _STRAYS_OLDER_THAN)
            if unknown := [stray for stray in strays if stray not in held]:
                released = await self._verbs.release(unknown)
                _log.warning("gave back %s runs whose claim had been lost with a connection", len(released))
        except DatabaseError as error:
            _log.warning("lost claims are not looked for yet: %s", error)
