"""The journal of a run in the database: read when an attempt takes over, written step by step, with the attempt's fence."""

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import anyio

from pgrun.db._connection import Row
from pgrun.db.verbs import Claimed, Verbs
from pgrun.errors import DatabaseUnavailable, LeaseLost, PgrunError
from pgrun.run.journal import Journal, Step
from pgrun.run.requirement import RunRequirement
from pgrun.worker.history import patiently

_log = logging.getLogger("pgrun.worker")

_PAUSE = 1.0  # seconds between tries while the database is away

Metrics = Callable[[], dict[str, Any] | None]


async def open_journal(verbs: Verbs, claimed: Claimed, metrics: Metrics) -> Journal:
    """The journal of a claimed run, with what earlier attempts have recorded and people have decided.

    Args:
        verbs: The database.
        claimed: The run.
        metrics: What it has used until now, which is written with each step.
    """
    if claimed.fence == 1:
        return _StoredJournal(verbs, claimed, metrics)
    rows = await patiently(claimed, "journal", lambda: verbs.steps(claimed.run_id))
    requirements, begun = await patiently(claimed, "decisions", lambda: verbs.decisions(claimed.run_id))
    return _StoredJournal(verbs, claimed, metrics, rows, requirements, begun)


class _StoredJournal(Journal):
    def __init__(
        self,
        verbs: Verbs,
        claimed: Claimed,
        metrics: Metrics,
        rows: Iterable[Row] = (),
        requirements: Iterable[Any] = (),
        begun: Iterable[tuple[int, int]] = (),
    ) -> None:
        steps = (Step(row["step"], row["kind"], row["name"], row["data"], row["duration"]) for row in rows)
        super().__init__(
            {step.number: step for step in steps}, [*map(RunRequirement.model_validate, requirements)], dict(begun)
        )
        self._verbs = verbs
        self._claimed = claimed
        self._metrics = metrics

    async def start(self, number: int, name: str) -> None:
        times = self.begun(number) + 1
        await self._write(f"the beginning of step {number}", lambda: self._begin(number, name, times))

    async def keep(self, step: Step) -> None:
        await self._write(f"step {step.number}", lambda: self._record(step))

    async def _begin(self, number: int, name: str, times: int) -> bool:
        return await self._verbs.begin_step(self._claimed, number=number, name=name, times=times)

    async def _record(self, step: Step) -> bool:
        return await self._verbs.record_step(self._claimed, **vars(step), metrics=self._metrics())

    async def _write(self, what: str, write: Callable[[], Awaitable[bool]]) -> None:
        while True:
            try:
                if await write():
                    return
            except (
                DatabaseUnavailable
            ) as error:  # it was paid for; and should the lease be lost meanwhile, we are stopped
                _log.warning("%r: %s is not recorded yet: %s", self._claimed, what, error)
                await anyio.sleep(_PAUSE)
            except PgrunError as error:
                _log.error("%r: %s is not recorded, another attempt would repeat it: %s", self._claimed, what, error)
                return
            else:
                raise LeaseLost(f"run {self._claimed.run_id} belongs to another attempt")
