"""The queues of a worker that have limits, or runs that take turns: they are claimed from one by one, beside all the others."""

import logging
from collections.abc import Collection, Sequence

from pgrun.db.records import Claimed, Look
from pgrun.db.verbs import Verbs
from pgrun.errors import DatabaseError

_log = logging.getLogger("pgrun.worker")


class Limited:
    """Which queues they are, and whose turn it is.

    A look at everything alternates: once these queues come first and the others get the slots that are left, once the other way
    round, and among these another one begins each time. So no backlog keeps another one waiting.

    Args:
        verbs: The database.
        yields: Whether the worker steps back from live daemons.
    """

    def __init__(self, verbs: Verbs, *, yields: bool) -> None:
        self._verbs = verbs
        self._yields = yields
        self._queues: list[str] = []
        self._is_first = False

    def __contains__(self, queue: object) -> bool:
        return queue in self._queues

    def note(self, apart: Collection[str]) -> None:
        """Takes down which queues a look at the others has left alone."""
        if {*self._queues} != {*apart}:
            self._queues = sorted(apart)

    def comes_first(self) -> bool:
        """Whether it is their turn to be looked at before the others."""
        self._is_first = bool(self._queues) and not self._is_first
        return self._is_first

    async def claim(self, worker_id: str, names: Sequence[str], slots: int) -> Look:
        """Takes up to `slots` runs of all of these queues."""
        claimed: list[Claimed] = []
        pauses: list[float] = []
        for queue in tuple(self._queues):
            if slots == len(claimed):
                break
            look = await self.claim_from(queue, worker_id, names, slots - len(claimed))
            claimed += look.claimed
            if look.next_due is not None:
                pauses.append(look.next_due)
        self._queues = [*self._queues[1:], *self._queues[:1]]
        return Look(claimed, min(pauses, default=None))

    async def claim_from(self, queue: str, worker_id: str, names: Sequence[str], slots: int) -> Look:
        """Takes up to `slots` runs of one of them."""
        try:
            return await self._verbs.claim_limited(worker_id, queue, names, slots, yields=self._yields)
        except DatabaseError as error:  # what other queues have given stays claimed
            _log.warning("no claim: %s", error)
            return Look([], 1.0)
