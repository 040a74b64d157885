"""What operators, and programs that operate, do with runs by their ids or by what they have in common: cancel, retry, prune."""

from functools import partial

from pgrun._ids import check_run_id
from pgrun._sync import run_sync
from pgrun.db.connected import Connects
from pgrun.db.pruning import Prunable, prune
from pgrun.db.redriving import Failed, retry_failed


class Tends(Connects):
    """These methods of `PostgresDb`."""

    async def acancel_run(self, run_id: str) -> bool:
        """Cancels a run of any agent or task, whoever executes it; else as `Run.acancel`."""
        return await (await self._verbs()).cancel(check_run_id(run_id)) in ("cancelled", "cancelling")

    def cancel_run(self, run_id: str) -> bool:
        """The same as `acancel_run`, for code without an event loop."""
        return run_sync(self.acancel_run, run_id)

    async def aretry_runs(
        self,
        *,
        queue: str | None = None,
        name: str | None = None,
        error_type: str | None = None,
        since: float | None = None,
        limit: int | None = None,
    ) -> int:
        """Makes runs that ended in error due again with all their attempts, the oldest first; returns how many they were.

        In short transactions. What fails again meanwhile is left alone. A task goes on after the steps that it has recorded.

        Args:
            queue: Only those of one queue.
            name: Only those of one agent or task.
            error_type: Only those with this error, as in the view `failures`.
            since: Only those that ended within so many seconds.
            limit: So many at most.

        Raises:
            UsageError: An argument cannot be.
        """
        which = Failed(queue=queue, name=name, error_type=error_type, since=since)
        return await retry_failed(await self._verbs(), which, limit=limit)

    def retry_runs(
        self,
        *,
        queue: str | None = None,
        name: str | None = None,
        error_type: str | None = None,
        since: float | None = None,
        limit: int | None = None,
    ) -> int:
        """The same as `aretry_runs`, for code without an event loop."""
        which = partial(self.aretry_runs, queue=queue, name=name, error_type=error_type)
        return run_sync(partial(which, since=since, limit=limit))

    async def aprune(
        self, older_than: float, *, status: str | None = None, queue: str | None = None, name: str | None = None
    ) -> int:
        """Deletes runs that ended more than `older_than` seconds ago, the oldest first, and returns how many they were.

        In short transactions with pauses between them, so that claims go on. Cancelled, it stops after a batch; what was
        deleted stays so. Sessions keep their rows; a run_id whose run is gone can be submitted anew.

        Args:
            older_than: Seconds; 0 deletes everything that has ended, also what somebody may be about to read.
            status: Only ``"completed"``, ``"error"`` or ``"cancelled"`` ones.
            queue: Only those of one queue.
            name: Only those of one agent or task.

        Raises:
            UsageError: An argument cannot be; nothing was deleted.
        """
        which = Prunable(older_than=older_than, status=status, queue=queue, name=name)
        return await prune(await self._verbs(), which)

    def prune(
        self, older_than: float, *, status: str | None = None, queue: str | None = None, name: str | None = None
    ) -> int:
        """The same as `aprune`, for code without an event loop."""
        return run_sync(partial(self.aprune, older_than, status=status, queue=queue, name=name))
