"""What makes schedules fire: every worker keeps the next tick in mind and tries to be the first. There is no leader.

Whoever is first submits the run of a tick and moves the schedule to the next one in a single statement; the others find it moved.
The database's clock decides whether a tick has come. Workers hear of changes by an empty ``pgrun_soon``, and look now and then
in case they did not.
"""

import logging
from datetime import datetime

import anyio

from pgrun import events
from pgrun._jitter import uniform
from pgrun.db.records import DueSchedule
from pgrun.db.verbs import Verbs
from pgrun.errors import PgrunError, SessionBusy, UsageError
from pgrun.schedule import Timing, due
from pgrun.settings import Settings

_log = logging.getLogger("pgrun.worker")

CHANGED = ""
"""What `pgrun_soon` says when a schedule was changed; no queue has this name."""

_POLLS = 6  # so many times as seldom as runs: a change that was not heard waits that long, a known tick does not
_AT_ONCE = 100  # schedules per look, of new ones as many again
_SPREAD = 0.01  # seconds after a tick within which the workers look, so that most of them find it fired
_LOCKED = 0.05  # seconds until the next look after something was due: somebody else may have had its row locked
_AFTER_FAILURE = 1.0  # seconds


class Schedules:
    """The looks of one worker at schedules."""

    def __init__(self, verbs: Verbs, settings: Settings) -> None:
        self._verbs = verbs
        self._settings = settings
        self._changed = anyio.Event()
        self._listening = False
        self._failed = False

    def wake(self) -> None:
        """Something has changed."""
        self._changed.set()

    def set_listening(self, listening: bool) -> None:
        """Whether changes are heard; what was not heard before is looked for now."""
        self._listening = listening
        self.wake()

    async def look_forever(self) -> None:
        """Fires whatever comes due, for as long as the worker lives."""
        while True:
            self._changed = anyio.Event()
            pause = await self.look()
            with anyio.move_on_after(pause):
                await self._changed.wait()

    async def look(self) -> float:
        """Fires what is due and plans what is new; returns the seconds until the next look."""
        settings = self._settings
        longest = settings.poll_interval if self._listening else settings.poll_interval_without_listen
        longest *= _POLLS * uniform(0.9, 1.1)
        self._failed = False
        try:
            schedules, next_in = await self._verbs.due_schedules(_AT_ONCE)
        except PgrunError as error:
            _log.warning("schedules are put off: %s", error)
            return _AFTER_FAILURE
        async with anyio.create_task_group() as tasks:  # one may wait for the lock of its session
            for schedule in schedules:
                tasks.start_soon(self._serve, schedule)
        if self._failed:
            return _AFTER_FAILURE
        if schedules:
            return 0.0 if len(schedules) >= _AT_ONCE else _LOCKED
        return longest if next_in is None else min(longest, max(next_in, 0.0) + uniform(0, _SPREAD))

    async def _serve(self, schedule: DueSchedule) -> None:
        try:
            ticks, next_at = _decide(schedule)
        except Exception as error:
            # Whatever somebody has written there: the worker lives, and the row says why it does not fire.
            await self._report(schedule, error)
            return
        try:
            if schedule.next_at is None:
                await self._verbs.plan_schedule(schedule, next_at)
            else:
                await self._fire(schedule, ticks, next_at)
        except PgrunError as error:
            if _is_for_good(error):
                await self._report(schedule, error)
            else:
                self._failed = True
                _log.warning("schedule %s is put off: %s", schedule.schedule, error)

    async def _fire(self, schedule: DueSchedule, ticks: list[datetime], next_at: datetime | None) -> None:
        while True:
            try:
                run_ids = await self._verbs.fire_schedule(schedule, ticks, next_at)
                break
            except SessionBusy:  # its runs do not wait for each other: at most the last one gets in
                ticks = ticks[-1:] if len(ticks) > 1 else []
        for run_id in run_ids or ():
            events.emit("fired", schedule=schedule.schedule, run_id=run_id)

    async def _report(self, schedule: DueSchedule, error: Exception) -> None:
        _log.error("schedule %s does not fire: %s", schedule.schedule, error)
        try:
            await self._verbs.plan_schedule(schedule, schedule.next_at, str(error) or type(error).__name__)
        except PgrunError as another:
            self._failed = True
            _log.warning("that is not written: %s", another)


def _decide(schedule: DueSchedule) -> tuple[list[datetime], datetime | None]:
    """The ticks to fire now, and the one to wait for."""
    timing = Timing(cron=schedule.cron, every=schedule.every, at=schedule.at, timezone=schedule.timezone)
    if schedule.next_at is None:
        return [], timing.next_after(schedule.changed_at)
    return due(timing, schedule.missed, schedule.next_at, schedule.now)


def _is_for_good(error: PgrunError) -> bool:
    """Whether the run cannot be submitted as the schedule is: a value that the database does not accept, a constraint."""
    return isinstance(error, UsageError) or str(getattr(error.__cause__, "sqlstate", "")).startswith("23")
