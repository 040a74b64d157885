"""The journal of a run in the database: read when an attempt takes over, written step by step, with the attempt's fence."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import anyio
from pydantic_core import from_json

from pgrun.db.verbs import Claimed, Verbs
from pgrun.errors import DatabaseUnavailable, LeaseLost, PgrunError
from pgrun.run.journal import Journal, Step
from pgrun.run.state import Change
from pgrun.worker.history import patiently

_log = logging.getLogger("pgrun.worker")

_PAUSE = 1.0  # seconds between tries while the database is away

Metrics = Callable[[], dict[str, Any] | None]


async def open_journal(verbs: Verbs, claimed: Claimed, metrics: Metrics) -> Journal:
    """The journal of a claimed run, with what earlier attempts have recorded.

    Args:
        verbs: The database.
        claimed: The run.
        metrics: What it has used until now, which is written with each step.
    """
    rows = await patiently(claimed, "journal", lambda: verbs.steps(claimed.run_id)) if claimed.fence > 1 else []
    steps = (Step(row["step"], row["kind"], row["name"], row["data"], row["duration"]) for row in rows)
    journal = _StoredJournal(verbs, claimed, metrics, {step.number: step for step in steps})
    journal.learn(from_json(claimed.steering) if claimed.steering else [])
    return journal


class _StoredJournal(Journal):
    def __init__(self, verbs: Verbs, claimed: Claimed, metrics: Metrics, recorded: dict[int, Step]) -> None:
        super().__init__(recorded)
        self._verbs = verbs
        self._claimed = claimed
        self._metrics = metrics

    def learn(self, steering: list[dict[str, Any]]) -> None:
        """What has been said to the run until now, as it is stored."""
        self.said = [message["content"] for message in steering]

    async def keep(self, step: Step) -> None:
        await self.change(step, ())

    async def change(self, step: Step, changes: Sequence[Change]) -> None:
        while True:
            try:
                kept = await self._verbs.record_step(
                    self._claimed, **vars(step), metrics=self._metrics(), changes=changes
                )
                if kept is not None:
                    self.learn(kept.steering or [])
                    self.state = self.state if kept.state is None else kept.state
                    return
            except (
                DatabaseUnavailable
            ) as error:  # it was paid for; and should the lease be lost meanwhile, we are stopped
                _log.warning("%r: step %s is not recorded yet: %s", self._claimed, step.number, error)
                await anyio.sleep(_PAUSE)
            except PgrunError as error:
                _log.error(
                    "%r: step %s is not recorded, another attempt would repeat it: %s",
                    self._claimed,
                    step.number,
                    error,
                )
                return
            else:
                raise LeaseLost(f"run {self._claimed.run_id} belongs to another attempt")
