"""The queues of a worker that have limits, or runs that take turns: they are claimed from one by one, beside all the others."""

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from enum import Enum

from pgrun.db.records import Claimed, Look
from pgrun.db.verbs import Verbs
from pgrun.errors import DatabaseError

_log = logging.getLogger("pgrun.worker")

OTHERS_EVERY = 0.25
"""Seconds after which a worker whose queues all have limits asks whether that is still so."""


class Turn(Enum):
    """When the queues with limits are looked at, in a look at everything."""

    LAST = "after the others"
    FIRST = "before the others, and what these have told of after them"
    ALONE = "there are no others; at most a quarter of a second ago that was so"


class Limited:
    """Which queues they are, and whose turn it is.

    A look at everything alternates: once these queues come first and the others get the slots that are left, once the other way
    round, and among these another one begins each time. So no backlog keeps another one waiting. A worker without other queues
    asks now and then only whether that is still so.

    Args:
        verbs: The database.
        yields: Whether the worker steps back from live daemons.

    Attributes:
        waited: Seconds for which claims from these queues have waited for those of other workers; half as much counts in the next
            look at everything, a quarter in the one after it.
    """

    def __init__(self, verbs: Verbs, *, yields: bool) -> None:
        self._verbs = verbs
        self._yields = yields
        self._apart: Mapping[str, bool] = {}
        self._looked_at: set[str] = set()
        self._turn = 0
        self._is_first = False
        self._others_at = 0.0
        self.waited = 0.0

    def __contains__(self, queue: object) -> bool:
        return queue in self._apart

    def note(self, apart: Mapping[str, bool]) -> None:
        """Takes down which queues a look at the others has left alone, and whether anything is pending there."""
        self._apart = apart
        self._others_at = time.monotonic() + OTHERS_EVERY

    def begin_round(self, queues: Collection[str]) -> Turn:
        """Begins a look at `queues`; returns when it is the turn of these."""
        self._looked_at.clear()
        self.waited /= 2
        there_are_others = time.monotonic() > self._others_at or not self._apart.keys() >= {*queues}
        self._is_first = any(self._apart.values()) and not (there_are_others and self._is_first)
        if self._is_first and not there_are_others:
            self._apart = dict.fromkeys(self._apart, True)  # more may be pending by now, and nobody else is asked
            return Turn.ALONE
        return Turn.FIRST if self._is_first else Turn.LAST

    async def claim(self, worker_id: str, names: Sequence[str], slots: int) -> Look:
        """Takes up to `slots` runs of all of these queues where anything was pending, each of them once in a round."""
        claimed: list[Claimed] = []
        pauses: list[float] = []
        for queue in self._queues():
            if slots == len(claimed):
                break
            self._looked_at.add(queue)
            look = await self.claim_from(queue, worker_id, names, slots - len(claimed))
            claimed += look.claimed
            if look.next_due is not None:
                pauses.append(look.next_due)
        return Look(claimed, min(pauses, default=None))

    async def claim_from(self, queue: str, worker_id: str, names: Sequence[str], slots: int) -> Look:
        """Takes up to `slots` runs of one of them."""
        try:
            look = await self._verbs.claim_limited(worker_id, queue, names, slots, yields=self._yields)
        except DatabaseError as error:  # what other queues have given stays claimed
            _log.warning("no claim: %s", error)
            return Look([], 1.0)
        self.waited = max(look.waited, self.waited)
        return look

    def _queues(self) -> list[str]:
        queues = sorted(
            queue for queue, is_pending in self._apart.items() if is_pending and queue not in self._looked_at
        )
        self._turn = (self._turn + 1) % max(len(queues), 1)
        return queues[self._turn :] + queues[: self._turn]
