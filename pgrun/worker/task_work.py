"""What an attempt at a run of a task carries out: the call of its function, with or without the context of the run."""

from typing import Any

from pgrun.db.records import Claimed
from pgrun.db.verbs import Verbs
from pgrun.task import Task
from pgrun.worker.progress import ProgressNotes
from pgrun.worker.task_run import open_context


class TaskWork:
    """A call of a Python function."""

    def __init__(self, task: Task[..., Any], claimed: Claimed) -> None:
        self._task = task
        self._claimed = claimed
        self.policy = task.retry
        self.timeout = task.timeout

    async def execute(self) -> tuple[bytes, None]:
        """Calls it; its result as JSON, which says nothing of its type."""
        return await self._task.execute(self._claimed.input), None

    async def execute_or_leave(self) -> tuple[bytes, None]:
        """The same; a cancellation leaves the thread of a plain function to itself, for nothing can stop that."""
        return await self._task.execute(self._claimed.input, may_leave=True), None


class TaskWorkInContext(TaskWork):
    """One of a function that asks for the context of its run, or has middleware."""

    def __init__(self, task: Task[..., Any], claimed: Claimed, verbs: Verbs, notes: ProgressNotes) -> None:
        super().__init__(task, claimed)
        self._verbs = verbs
        self._notes = notes

    async def execute(self) -> tuple[bytes, None]:
        """The same with the context of the run."""
        return await self._execute(may_leave=False)

    async def execute_or_leave(self) -> tuple[bytes, None]:
        """The same, and a cancellation leaves a thread to itself."""
        return await self._execute(may_leave=True)

    async def _execute(self, *, may_leave: bool) -> tuple[bytes, None]:
        context = await open_context(self._verbs, self._claimed, self._notes)
        self._notes.open(self._claimed)
        try:
            return await self._task.execute(self._claimed.input, context, may_leave=may_leave), None
        finally:
            await self._notes.settle(self._claimed)
