"""What users do with schedules: declare them in code, add and change them at run time, look at them.

Nothing fires here: workers do that (`worker/schedules.py`), wherever the schedule came from.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from pgrun._ids import new_run_id
from pgrun._sync import run_sync
from pgrun.db.declared import Declared, declare, make_known
from pgrun.db.planning import Target, plan, timing_of
from pgrun.db.submitting import Submitting
from pgrun.schedule import Missed


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A schedule as it stands in the database; its fields are columns of `pgrun.schedules`.

    Attributes:
        schedule: Its name.
        name: The agent or task that its runs execute.
        input: Their input, as JSON data.
        queue: Their queue.
        cron: Its ticks, see `PostgresDb.aschedule`; or
        every: …; or
        at: ….
        timezone: Where the clock hangs that `cron` means.
        missed: What becomes of ticks that nobody could fire in time.
        options: What else its runs are told.
        next_at: Its next tick. None: there is none, it is paused, or no worker has looked at it since it was changed.
        last_at: The tick that was fired last.
        last_run_id: Its run.
        last_status: How that stands; None if it is gone.
        paused_at: It fires nothing since then.
        ended_at: Since then it has no tick any more.
        error: Why it does not fire, as a wrong expression that came by SQL; any change lets a worker try again.
        created_at: Added.
        declared_at: When a worker started last that declares it in its code; None if none does.
    """

    schedule: str
    name: str
    input: Any
    queue: str
    cron: str | None
    every: timedelta | None
    at: datetime | None
    timezone: str
    missed: str
    options: dict[str, Any]
    next_at: datetime | None
    last_at: datetime | None
    last_run_id: str | None
    last_status: str | None
    paused_at: datetime | None
    ended_at: datetime | None
    error: str | None
    created_at: datetime
    declared_at: datetime | None


class Scheduling(Submitting):
    """These methods of `PostgresDb`."""

    def declare_schedule(
        self,
        target: Target,
        input: Any = None,
        *,
        name: str | None = None,
        cron: str | None = None,
        every: float | timedelta | None = None,
        at: datetime | None = None,
        timezone: str = "UTC",
        missed: Missed = "once",
        **options: Any,
    ) -> None:
        """Says in code that an agent or a task is to be run by a schedule; arguments as for `aschedule`.

        Nothing is written here: a worker that has imported the code writes it when it starts, if it is new or differs from what
        was declared last. So what an operator has changed stays until the code changes, and a pause stays in any case. A
        schedule that the code does not declare any more goes on until somebody removes it; its `declared_at` stays behind.

        Raises:
            UsageError: Something cannot be, or another schedule of that name was declared.
        """
        new = plan(target, input, name, timing_of(cron, every, at, timezone), missed, options)
        declare(Declared(self, target, new))

    async def aschedule(
        self,
        target: Target | str,
        input: Any = None,
        *,
        name: str | None = None,
        cron: str | None = None,
        every: float | timedelta | None = None,
        at: datetime | None = None,
        timezone: str = "UTC",
        missed: Missed = "once",
        **options: Any,
    ) -> str:
        """Adds a schedule, or changes the one of that name; each of its ticks submits one run.

        Args:
            target: An agent; a task, whose options come from ``task.options(…)``; or the name of one that is known elsewhere.
            input: What the agent is asked; for a task a dict of its keyword arguments.
            name: Of the schedule. Default: that of the target.
            cron: ``"0 9 * * MON-FRI"``: minute, hour, day of month, month, day of week, as Debian's cron reads them; with six
                fields the first is the second. Where clocks go forward, what has a fixed time in the hour that is left out
                comes right after it; where they go back, it comes once.
            every: Seconds, or a timedelta: the multiples of it since 1970 in UTC. ``every=300`` is at :00, :05 and so on.
            at: One moment, an aware datetime.
            timezone: Where the clock hangs that `cron` means: a name of the IANA database, such as ``"Europe/Berlin"``.
            missed: What becomes of ticks while no worker lives: ``"once"`` fires the last of them, ``"all"`` each of them (the
                last hundred at most), ``"skip"`` none that is more than a minute late.
            **options: What an agent's runs are told, see `AgentRunOptions`; no `run_id` and no `delay`. With `session_id` and
                ``multitask="reject"`` a tick is left out while the run of an earlier one is open.

        Returns:
            The name of the schedule.

        Raises:
            UsageError: Something cannot be; nothing was changed.
        """
        new = plan(target, input, name, timing_of(cron, every, at, timezone), missed, options)
        await make_known(self, target)
        connected = await self.connected()
        await connected.verbs.set_schedule(new)
        self._take_in(connected, new.queue)
        return new.schedule

    def schedule(
        self,
        target: Target | str,
        input: Any = None,
        *,
        name: str | None = None,
        cron: str | None = None,
        every: float | timedelta | None = None,
        at: datetime | None = None,
        timezone: str = "UTC",
        missed: Missed = "once",
        **options: Any,
    ) -> str:
        """The same as `aschedule`, for code without an event loop."""
        when: dict[str, Any] = {"cron": cron, "every": every, "at": at, "timezone": timezone}
        return run_sync(partial(self.aschedule, target, input, name=name, missed=missed, **when, **options))

    async def aunschedule(self, name: str) -> bool:
        """Removes a schedule; what it has submitted stays. Returns whether there was one."""
        return await (await self._verbs()).remove_schedule(name)

    def unschedule(self, name: str) -> bool:
        """The same as `aunschedule`, for code without an event loop."""
        return run_sync(self.aunschedule, name)

    async def apause_schedule(self, name: str) -> None:
        """A schedule fires nothing until it is resumed; ticks in between are gone, whatever its `missed`.

        Raises:
            UsageError: There is no such schedule.
        """
        await (await self._verbs()).pause_schedule(name)

    def pause_schedule(self, name: str) -> None:
        """The same as `apause_schedule`, for code without an event loop."""
        run_sync(self.apause_schedule, name)

    async def aresume_schedule(self, name: str) -> None:
        """Ends a pause: the ticks from now on count.

        Raises:
            UsageError: There is no such schedule.
        """
        await (await self._verbs()).resume_schedule(name)

    def resume_schedule(self, name: str) -> None:
        """The same as `aresume_schedule`, for code without an event loop."""
        run_sync(self.aresume_schedule, name)

    async def arun_schedule(self, name: str) -> str:
        """Submits a run of a schedule now, besides its ticks, also of a paused one; returns its run_id.

        Raises:
            UsageError: There is no such schedule.
            SessionBusy: Its runs do not wait for each other, and one is open.
        """
        run_id = new_run_id()
        await (await self._verbs()).run_schedule(name, run_id)
        return run_id

    def run_schedule(self, name: str) -> str:
        """The same as `arun_schedule`, for code without an event loop."""
        return run_sync(self.arun_schedule, name)

    async def aschedules(self) -> list[Schedule]:
        """All schedules, by name."""
        return [Schedule(**row) for row in await (await self._verbs()).list_schedules()]

    def schedules(self) -> list[Schedule]:
        """The same as `aschedules`, for code without an event loop."""
        return run_sync(self.aschedules)
