"""The journal of a run in the database: read when an attempt takes over, written step by step, with the attempt's fence."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
from pydantic_core import from_json

from pgrun.db.records import Claimed
from pgrun.db.verbs import Verbs
from pgrun.errors import DatabaseUnavailable, LeaseLost, PgrunError
from pgrun.run.journal import CallUnderWay, Journal, Step
from pgrun.run.requirement import RunRequirement
from pgrun.run.state import Change
from pgrun.worker.patience import patiently

_log = logging.getLogger("pgrun.worker")

_PAUSE = 1.0  # seconds between tries while the database is away

_PATIENCE = 30.0  # seconds: usually providers begin within one; where they do not, slots are for runs that get on

Metrics = Callable[[], dict[str, Any] | None]


async def open_journal(verbs: Verbs, claimed: Claimed, metrics: Metrics, on_wait: Callable[[], None]) -> Journal:
    """The journal of a claimed run, with what earlier attempts have recorded and people have decided.

    Args:
        verbs: The database.
        claimed: The run.
        metrics: What it has used until now, which is written with each step.
        on_wait: Called when the attempt begins to wait for an answer that another could take up just as well.
    """
    journal = _StoredJournal(verbs, claimed, metrics, on_wait)
    journal.learn(from_json(claimed.steering) if claimed.steering else [])
    if claimed.fence > 1:
        await journal.read()
    return journal


class _StoredJournal(Journal):
    keeps_calls = True
    patience = _PATIENCE

    def __init__(self, verbs: Verbs, claimed: Claimed, metrics: Metrics, on_wait: Callable[[], None]) -> None:
        super().__init__()
        self._verbs = verbs
        self._claimed = claimed
        self._metrics = metrics
        self._on_wait = on_wait

    async def read(self) -> None:
        """Reads what earlier attempts have left, and people have decided."""
        claimed, verbs, run_id = self._claimed, self._verbs, self._claimed.run_id
        rows = await patiently(claimed, "journal", lambda: verbs.steps(run_id))
        steps = (Step(row["step"], row["kind"], row["name"], row["data"], row["duration"]) for row in rows)
        self._recorded = {step.number: step for step in steps}
        left = await patiently(claimed, "unfinished steps", lambda: verbs.unfinished(run_id))
        self.requirements, self._begun = [*map(RunRequirement.model_validate, left.requirements)], left.begun
        self._call = CallUnderWay(left.call["step"], left.call["response_id"]) if left.call else None

    async def start(self, number: int, name: str) -> None:
        times = self.begun(number) + 1
        await self._write(
            f"the beginning of step {number}",
            lambda: self._verbs.begin_step(self._claimed, number=number, name=name, times=times),
        )

    def learn(self, steering: list[dict[str, Any]]) -> None:
        """What has been said to the run until now, as it is stored."""
        self.said = [message["content"] for message in steering]

    async def keep(self, step: Step) -> None:
        await self.change(step, ())

    async def change(self, step: Step, changes: Sequence[Change]) -> None:
        async def record() -> bool:
            kept = await self._verbs.record_step(self._claimed, **vars(step), metrics=self._metrics(), changes=changes)
            if kept is not None:
                self.learn(kept.steering or [])
                self.state = self.state if kept.state is None else kept.state
            return kept is not None

        await self._write(f"step {step.number}", record)

    async def note_call(self, number: int, response_id: str | None) -> None:
        await self._write(
            f"the call of step {number}", lambda: self._verbs.note_call(self._claimed, number, response_id)
        )

    def wait(self, waits: bool) -> None:
        super().wait(waits)
        if waits:
            self._on_wait()

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
