"""What a task may ask of its run, with the database behind it: steps and sleeps in its journal, with the attempt's fence."""

import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.from_thread

from pgrun.db.records import Claimed, TaskRun
from pgrun.db.verbs import Verbs
from pgrun.errors import LeaseLost
from pgrun.run._storable import storable_text
from pgrun.run.task_context import TaskContext
from pgrun.run.task_host import Asleep, Begun, TaskHost, check_seconds
from pgrun.worker.patience import patiently
from pgrun.worker.progress import ProgressNotes

T = TypeVar("T")

_LOOK = 0.1  # seconds between looks of a sleeping thread whether it is to stop
_SHORT = 5.0  # seconds; to sleep longer a run gives its slot back, which costs it a claim


async def open_context(verbs: Verbs, claimed: Claimed, notes: ProgressNotes) -> TaskContext:
    """The context of a claimed run of a task, with what earlier attempts have recorded."""
    run = await patiently(claimed, "journal", lambda: verbs.task_run(claimed.run_id))
    return TaskContext(
        run_id=claimed.run_id,
        name=claimed.name,
        attempt=claimed.attempt,
        max_attempts=claimed.max_attempts,
        session_id=claimed.session_id,
        parent_run_id=claimed.parent_run_id,
        metadata=run.metadata,
        host=_StoredHost(verbs, claimed, run, notes),
    )


class _StoredHost(TaskHost):
    def __init__(self, verbs: Verbs, claimed: Claimed, run: TaskRun, notes: ProgressNotes) -> None:
        super().__init__(run.steps)
        self._verbs = verbs
        self._claimed = claimed
        self._notes = notes
        self._opened = time.monotonic()

    async def keep(self, begun: Begun, data: bytes, duration: float) -> None:
        step: dict[str, Any] = {"kind": "step", "number": begun.number, "name": begun.name, "duration": duration}
        record = partial(self._verbs.record_step, self._claimed, **step, data=data, metrics=None)
        await self._record(f'step "{begun.name}"', record)

    def keep_here(self, begun: Begun, data: bytes, duration: float) -> None:
        _in_loop(self.keep, begun, data, duration)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(_unless_long(await self._fall_asleep(seconds)))

    def sleep_here(self, seconds: float) -> None:
        # Asleep is raised here and not in the loop, which would take it for the end of everything.
        _sleep_unless_stopped(_unless_long(_in_loop(self._fall_asleep, seconds)))

    def note(self, progress: dict[str, Any]) -> None:
        if "message" in progress:
            progress = {**progress, "message": storable_text(progress["message"])}
        self._notes.note(self._claimed, progress)

    async def _fall_asleep(self, seconds: float) -> float:
        begun, claimed = self.begin("sleep", "sleep"), self._claimed
        if begun.recorded is not None:
            passed = time.monotonic() - self._opened
            return max(float(begun.recorded["remaining"]) - passed, 0.0)
        seconds = check_seconds(seconds)
        record = partial(self._verbs.record_sleep, claimed, number=begun.number, name=begun.name, seconds=seconds)
        return max(await self._record("sleep", record), 0.0)  # of a repeat it may be over

    async def _record(self, what: str, write: Callable[[], Awaitable[T | None]]) -> T:
        written = await patiently(self._claimed, what, write)
        if written is None:
            raise LeaseLost(f"run {self._claimed.run_id} belongs to another attempt")
        return written


def _unless_long(remaining: float) -> float:
    if remaining > _SHORT:
        raise Asleep(remaining)
    return remaining


def _sleep_unless_stopped(seconds: float) -> None:
    """Sleeps in a task's thread, which looks for itself whether it is to stop: nobody can wake it."""
    ends_at = time.monotonic() + seconds
    while (left := ends_at - time.monotonic()) > 0:
        anyio.from_thread.check_cancelled()
        time.sleep(min(left, _LOOK))


def _in_loop(function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    """Calls it from a task's thread; what it records is recorded, also if the task is to stop."""
    found: list[T] = []

    async def shielded() -> None:
        with anyio.CancelScope(shield=True):
            found.append(await function(*args))

    anyio.from_thread.run(shielded)
    return found[0]
