"""Schedules and their ticks."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pgrun.db._connection import Row
from pgrun.db.records import DueSchedule, NewSchedule
from pgrun.db.verbs._base import Base, as_json


class Schedules(Base):
    """These verbs."""

    async def set_schedule(self, new: NewSchedule) -> None:
        """Adds a schedule, or changes the one of that name."""
        await self._runtime.fetch("set_schedule", _schedule(new))

    async def declare_schedule(self, new: NewSchedule) -> None:
        """Writes a schedule that code declares, if it is new or the code has changed; see `declare_schedule.sql`."""
        await self._runtime.fetch("declare_schedule", _schedule(new))

    async def due_schedules(self, most: int) -> tuple[list[DueSchedule], float | None]:
        """Schedules that a worker has to look at, at most so many; and in how many seconds the next tick of all comes, if any."""
        rows = await self._runtime.fetch_tuples("look_at_schedules", {"most": most})
        next_in: float | None = rows[0][-1]
        return [DueSchedule(*row[:-1]) for row in rows if row[0] is not None], next_in

    async def plan_schedule(self, due: DueSchedule, next_at: datetime | None, error: str = "") -> bool:
        """Says when a schedule comes round next, None: never again, or what is wrong with it; False if it has changed since."""
        return bool(await self._runtime.fetch("plan_schedule", {**_tick(due, next_at), "error": error}))

    async def fire_schedule(
        self, due: DueSchedule, ticks: Sequence[datetime], next_at: datetime | None
    ) -> list[str] | None:
        """Submits a run for each of these ticks of a schedule; returns their ids, None if the tick was not the caller's."""
        row = await self._runtime.fetch_one("fire_schedule", {**_tick(due, next_at), "ticks": [*ticks]})
        return None if row is None else row["run_ids"]

    async def remove_schedule(self, schedule: str) -> bool:
        """Removes a schedule; whether there was one."""
        row = await self._runtime.fetch_one("remove_schedule", {"schedule": schedule})
        return bool(row and row["removed"])

    async def pause_schedule(self, schedule: str) -> None:
        """A schedule fires nothing until it is resumed."""
        await self._runtime.fetch("pause_schedule", {"schedule": schedule})

    async def resume_schedule(self, schedule: str) -> None:
        """A paused schedule fires again."""
        await self._runtime.fetch("resume_schedule", {"schedule": schedule})

    async def run_schedule(self, schedule: str, run_id: str) -> None:
        """Submits a run of a schedule now, besides its ticks."""
        await self._runtime.fetch("run_schedule", {"schedule": schedule, "run_id": run_id})

    async def list_schedules(self, schedule: str = "") -> list[Row]:
        """Schedules by name, see `list_schedules.sql`; an empty name means all."""
        return await self._runtime.fetch("list_schedules", {"schedule": schedule})


def _schedule(new: NewSchedule) -> dict[str, Any]:
    """The parameters of `set_schedule.sql` and `declare_schedule.sql`."""
    return {
        **new._asdict(),
        "input": as_json(new.input),
        "cron": new.cron or "",
        "every": "" if new.every is None else str(new.every.total_seconds()),
        "at": "" if new.at is None else new.at.isoformat(),
        "options": as_json(new.options),
    }


def _tick(due: DueSchedule, next_at: datetime | None) -> dict[str, Any]:
    """The tick of a schedule that a worker looks at, and the one that follows."""
    return {
        "schedule": due.schedule,
        "changed_at": due.changed_at,
        "expected": "" if due.next_at is None else due.next_at.isoformat(),
        "next_at": "" if next_at is None else next_at.isoformat(),
    }
