"""The journal of a run in the database: read when an attempt takes over, written step by step, with the attempt's fence."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from pgrun.db.verbs import Claimed, Verbs
from pgrun.errors import DatabaseUnavailable, LeaseLost, PgrunError
from pgrun.run.journal import CallUnderWay, Journal, Step
from pgrun.worker.history import patiently

_log = logging.getLogger("pgrun.worker")

_PAUSE = 1.0  # seconds between tries while the database is away

_PATIENCE = 30.0  # seconds: usually providers begin within one; where they do not, slots are for runs that get on

Metrics = Callable[[], dict[str, Any] | None]


async def open_journal(verbs: Verbs, claimed: Claimed, metrics: Metrics, on_wait: Callable[[], None]) -> Journal:
    """The journal of a claimed run, with what earlier attempts have recorded.

    Args:
        verbs: The database.
        claimed: The run.
        metrics: What it has used until now, which is written with each step.
        on_wait: Called when the attempt begins to wait for an answer that another could take up just as well.
    """
    journal = _StoredJournal(verbs, claimed, metrics, on_wait)
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
        """Reads what earlier attempts have left."""
        run_id = self._claimed.run_id
        rows = await patiently(self._claimed, "journal", lambda: self._verbs.steps(run_id))
        steps = (Step(row["step"], row["kind"], row["name"], row["data"], row["duration"]) for row in rows)
        self._recorded = {step.number: step for step in steps}
        call = await patiently(self._claimed, "answer under way", lambda: self._verbs.call_under_way(run_id))
        self._call = CallUnderWay(call["step"], call["response_id"]) if call else None

    async def keep(self, step: Step) -> None:
        await self._write(
            step.number, lambda: self._verbs.record_step(self._claimed, **vars(step), metrics=self._metrics())
        )

    async def note_call(self, number: int, response_id: str | None) -> None:
        await self._write(number, lambda: self._verbs.note_call(self._claimed, number, response_id))

    def wait(self, waits: bool) -> None:
        super().wait(waits)
        if waits:
            self._on_wait()

    async def _write(self, number: int, write: Callable[[], Awaitable[bool]]) -> None:
        while True:
            try:
                if await write():
                    return
            except (
                DatabaseUnavailable
            ) as error:  # it was paid for; and should the lease be lost meanwhile, we are stopped
                _log.warning("%r: step %s is not recorded yet: %s", self._claimed, number, error)
                await anyio.sleep(_PAUSE)
            except PgrunError as error:
                _log.error(
                    "%r: step %s is not recorded, another attempt would repeat it: %s", self._claimed, number, error
                )
                return
            else:
                raise LeaseLost(f"run {self._claimed.run_id} belongs to another attempt")
