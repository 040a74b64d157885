"""How a worker claims: where it looks when it has free slots, for everything or for what it was woken for, and when."""

import logging
import time
from collections.abc import Callable, Collection, Sequence

import anyio

from pgrun import events
from pgrun._jitter import uniform
from pgrun.db.records import Claimed, Look
from pgrun.db.verbs import Verbs
from pgrun.errors import DatabaseError
from pgrun.settings import Settings
from pgrun.worker.cursor import Cursor
from pgrun.worker.limited import OTHERS_EVERY, Limited, Turn
from pgrun.worker.pace import Pace
from pgrun.worker.registration import Registration
from pgrun.worker.slots import Slots

_log = logging.getLogger("pgrun.worker")

_MOST_AT_ONCE = 1000  # runs per claim
_GATHER = 0.001  # seconds for which free slots are gathered under a backlog ...
_GATHER_TIMES = 4  # ... or so many times as long as a claim waited for those of others ...
_GATHER_LONGEST = 0.01  # ... but no longer
_EVERYTHING = ""  # for which a worker is woken; no queue has this name
_HORIZON = 10.0  # seconds; runs that fall due within it are waited for to the millisecond


class Claims:
    """The claims of one worker.

    Args:
        verbs: The database.
        settings: How often to look unasked.
        registration: The worker.
        serves: Its queues; the collection may grow.
        yields: Whether it steps back where a daemon serves.
        draining: Whether it claims nothing more; woken, it looks at that.

    Attributes:
        is_listening: Whether notifications arrive.
    """

    def __init__(
        self,
        verbs: Verbs,
        settings: Settings,
        registration: Registration,
        serves: Collection[str],
        *,
        yields: bool,
        draining: Callable[[], bool],
    ) -> None:
        self._verbs = verbs
        self._settings = settings
        self._registration = registration
        self._serves = serves
        self._yields = yields
        self._draining = draining
        self._limited = Limited(verbs, yields=yields)
        self._cursor = Cursor()
        self._woken = anyio.Event()
        self._woken_for: set[str] = set()
        self._look_at = 0.0
        self._claiming_since: float | None = None
        self.is_listening = False

    @property
    def claiming_for(self) -> float:
        """For how many seconds a claim has been under way, 0 if none is."""
        return 0.0 if self._claiming_since is None else time.monotonic() - self._claiming_since

    def wakes_for(self, queue: str = _EVERYTHING) -> bool:
        """Whether to wake it for this queue is news; for any thread."""
        return queue not in self._woken_for

    def wake(self, queue: str = _EVERYTHING) -> None:
        """There may be something in this queue, or anywhere."""
        self._woken_for.add(queue)
        self._woken.set()

    async def claim_forever(self, slots: Slots) -> None:
        """Fills free slots until the worker drains; then others are told to look."""
        pace = Pace(self._promise_looks, may_promise=not self._yields)
        there_is_more = False
        while not self._draining():
            free = min(slots.free, _MOST_AT_ONCE)
            if free == 0:
                await pace.wait_for_slot(slots.some_left)
                continue
            if there_is_more:
                free = await self._gather(slots)
            # Whatever wakes us from here on is not seen by this claim for certain.
            woken_for, self._woken_for = self._woken_for, set()
            self._woken = anyio.Event()
            self._claiming_since = time.monotonic()
            if len(woken_for) == 1 and not (there_is_more or pace.is_awake):
                claimed, pause = await self._claim_woken(woken_for.pop(), free)
            else:
                claimed, pause = await self._claim(free)
            slots.take(claimed)
            self._claiming_since = None
            there_is_more = len(claimed) == free
            if not there_is_more:
                await pace.rest(len(claimed), pause, self._woken)
        await pace.sleep(hands_over=True)

    async def _gather(self, slots: Slots) -> int:
        """How many slots are free, after a moment if they are few: they are freed in batches, and one statement is for many.

        Claims from a queue with limits come one after the other. Whoever had to wait for those of others gathers more before the
        next one: so there are fewer claims, and the others wait the less, too.
        """
        enough, longest = slots.size // 4, _GATHER
        if self._limited.waited > _GATHER:
            enough, longest = slots.size * 3 // 4, min(_GATHER_TIMES * self._limited.waited, _GATHER_LONGEST)
        until = time.monotonic() + longest
        while slots.free < min(enough, _MOST_AT_ONCE) and time.monotonic() < until:  # noqa: ASYNC110 - each batch would wake it
            await anyio.sleep(_GATHER)
        return min(slots.free, _MOST_AT_ONCE)

    async def _promise_looks(self, seconds: float, hands_over: bool) -> None:
        try:
            await self._verbs.promise_looks(self._registration.worker_id, seconds, hands_over=hands_over)
        except DatabaseError as error:
            _log.warning("whether it has to be woken is not written: %s", error)

    async def _claim_woken(self, queue: str, free: int) -> tuple[list[Claimed], float]:
        """The same as `_claim`, after a notification for one queue, when something due is likely to be there."""
        own = self._registration
        if queue == _EVERYTHING or self._yields or self._cursor.positions or not own.is_current:
            return await self._claim(free)
        if queue in self._limited:
            claimed, next_due, *_ = await self._limited.claim_from(queue, own.worker_id, own.names, free)
            if next_due is not None:
                self._look_at = min(self._look_at, time.monotonic() + next_due)
        else:
            try:
                claimed = await self._verbs.claim_woken(own.worker_id, queue, own.names, free)
            except DatabaseError as error:
                _log.warning("no claim: %s", error)
                return [], 1.0
            if not claimed:  # somebody else was faster, or it is not simple
                return await self._claim(free)
        _tell(claimed)
        return claimed, max(self._look_at - time.monotonic(), 0.0)

    async def _claim(self, free: int) -> tuple[list[Claimed], float]:
        """The runs claimed, and for how many seconds it makes sense to sleep when there are fewer than slots."""
        settings = self._settings
        interval = settings.poll_interval if self.is_listening else settings.poll_interval_without_listen
        pause = interval * uniform(0.9, 1.1)
        claimed: list[Claimed] = []
        turn, looks = self._limited.begin_round(self._serves), [self._claim_unlimited, self._claim_limited]
        if turn is Turn.ALONE:
            looks, pause = [self._claim_limited], min(pause, OTHERS_EVERY)
        elif turn is Turn.FIRST:
            looks = [self._claim_limited, *looks]
        for look in looks:
            if len(claimed) < free:
                found, next_due, *_ = await look(free - len(claimed))
                claimed += found
                pause = pause if next_due is None else min(pause, max(next_due, 0.0))
        _tell(claimed)
        self._look_at = time.monotonic() + pause
        return claimed, pause

    async def _claim_limited(self, free: int) -> Look:
        return await self._limited.claim(self._registration.worker_id, self._registration.names, free)

    async def _claim_unlimited(self, free: int) -> Look:
        own = self._registration
        try:
            if not own.is_current:
                await own.write()
            positions = self._cursor.positions
            began = time.monotonic()
            look = await self._verbs.claim(
                own.worker_id,
                own.queues,
                own.names,
                free,
                yields=self._yields,
                horizon=_HORIZON,
                positions=positions,
            )
            took = time.monotonic() - began
            self._cursor.looked(look.claimed, took, from_first=not positions, filled=len(look.claimed) == free)
        except DatabaseError as error:
            _log.warning("no claim: %s", error)
            return Look([], 1.0)
        self._limited.note(look.apart)
        if positions and not look.claimed:
            return await self._claim_unlimited(free)  # from the first run, which is where it begins now
        return look


def _tell(claimed: Sequence[Claimed]) -> None:
    for run in claimed:
        events.emit("claimed", run_id=run.run_id, name=run.name, attempt=run.attempt, fence=run.fence)
