"""What providers still work on for runs that have ended is stopped by any worker that sees it, whoever ended the run."""

import logging

import anyio

from pgrun._agents_here import known_definition
from pgrun._jitter import uniform
from pgrun._stopping import stop_left_calls
from pgrun.db.verbs import Verbs
from pgrun.errors import DatabaseError
from pgrun.worker.registration import Registration

_log = logging.getLogger("pgrun.worker")

LEFT = "left"
"""What `pgrun_cancel` says instead of a run_id when there is something to stop (`_leave_call`)."""

_LOOK_EVERY = 60.0  # seconds, more or less, for a notification that was lost and for what nobody could stop


class LeftCalls:
    """The looks of one worker."""

    def __init__(self, verbs: Verbs, worker: Registration) -> None:
        self._verbs = verbs
        self._worker = worker
        self._woken = anyio.Event()
        self._looking = anyio.Lock()

    def wake(self) -> None:
        """Lets it look now."""
        self._woken.set()

    async def look_forever(self) -> None:
        """Looks at first, when it is woken, and about once a minute."""
        while True:
            self._woken = anyio.Event()
            await self.look()
            with anyio.move_on_after(_LOOK_EVERY * uniform(0.5, 1.5)):
                await self._woken.wait()

    async def look(self) -> None:
        """Stops what there is now, and returns when that is done, also what another look had begun."""
        try:
            async with self._looking:
                left = await self._verbs.take_left_calls(self._worker.names, queues=self._worker.queues)
                await stop_left_calls(self._verbs, left, known_definition)
        except DatabaseError as error:
            _log.warning("answers that nobody waits for any more are not looked for yet: %s", error)
