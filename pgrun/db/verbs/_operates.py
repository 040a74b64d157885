"""What people do and look at: with a run, with many, with queues."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from pgrun._ids import new_run_id
from pgrun.db._connection import Row
from pgrun.db.verbs._base import Base, as_json


class Operates(Base):
    """These verbs."""

    async def get(self, run_id: str) -> Row | None:
        """The whole row of a run."""
        return await self._runtime.fetch_one("get_run", {"run_id": run_id})

    async def cancel(self, run_id: str) -> str:
        """Cancels a run; `cancelled`, `cancelling`, or the status it had ended in."""
        row = await self._runtime.fetch_one("cancel_run", {"run_id": run_id})
        assert row is not None
        return str(row["state"])

    async def steer(self, run_id: str, message: str) -> str:
        """Says something to an open run; returns its status."""
        params = {"run_id": run_id, "message": message, "message_id": str(uuid4())}
        row = await self._runtime.fetch_one("steer_run", params)
        assert row is not None
        return str(row["status"])

    async def approve(self, run_id: str, decision: Mapping[str, Any]) -> str:
        """Decides on a call that a run waits for, or on all of them; returns the status that the run has now.

        Args:
            run_id: The run.
            decision: Parameters of `pgrun.approve` that are not left at their default: call_id, approved, note, result, input,
                decision_id, decided_by.
        """
        # Sent again after a lost connection it must not decide on what the run waits for by then.
        decided = {"decision_id": new_run_id()} | {name: value for name, value in decision.items() if value is not None}
        params = {"run_id": run_id, "decision": as_json(decided)}
        row = await self._runtime.fetch_one("approve_run", params)
        assert row is not None
        return str(row["status"])

    async def retry_ended(self, run_id: str) -> str:
        """Makes a failed or cancelled run due again; returns its status."""
        row = await self._runtime.fetch_one("retry_ended_run", {"run_id": run_id})
        assert row is not None
        return str(row["status"])

    async def retry_failed(
        self,
        *,
        queue: str | None,
        name: str | None,
        error_type: str | None,
        since: float | None,
        until: datetime | None,
        batch: int,
    ) -> tuple[int, datetime]:
        """Makes up to `batch` runs that ended in error due again, within the last `since` seconds; None means any.

        Returns how many, and the `until` of the next call; when it was none, none is left.
        """
        which = _failed(queue, name, error_type, since)
        params = {**which, "until": until.isoformat() if until else "", "batch": batch}
        row = await self._runtime.fetch_one("retry_failed", params)
        assert row is not None
        return int(row["retried"]), row["until"]

    async def count_failed(
        self, *, queue: str | None, name: str | None, error_type: str | None, since: float | None
    ) -> int:
        """How many runs `retry_failed` would make due again with the same arguments."""
        row = await self._runtime.fetch_one("count_failed", _failed(queue, name, error_type, since))
        assert row is not None
        return int(row["failed"])

    async def list_runs(
        self,
        *,
        status: str = "",
        queue: str = "",
        name: str = "",
        session_id: str = "",
        tags: Sequence[str] = (),
        metadata: Mapping[str, str] = MappingProxyType({}),
        max_rows: int = 20,
    ) -> list[Row]:
        """Runs as the view shows them, the newest first; an empty filter means any.

        They have all of the tags; values in the metadata are compared as texts.
        """
        filters = {"status": status, "queue": queue, "name": name, "session_id": session_id}
        found = {"tags": [*tags], "metadata": as_json({**metadata}), "max_rows": max_rows}
        return await self._runtime.fetch("list_runs", {**filters, **found})

    async def prune(
        self,
        older_than: float,
        *,
        status: str | None,
        queue: str | None,
        name: str | None,
        after: datetime | None,
        batch: int,
    ) -> tuple[int, datetime | None]:
        """Deletes up to `batch` runs that ended more than `older_than` seconds ago; None for status, queue and name means any.

        Returns how many were deleted, and the `after` of the next call; None when nothing is left.
        """
        row = await self._runtime.fetch_one(
            "prune_runs",
            {
                **_prunable(older_than, status, queue, name),
                "after": after and after.isoformat(),
                "batch": batch,
            },
        )
        assert row is not None
        return row["deleted"], row["reached"]

    async def count_prunable(
        self, older_than: float, *, status: str | None, queue: str | None, name: str | None = None
    ) -> int:
        """How many runs `prune` would delete with the same arguments, until nothing is left."""
        row = await self._runtime.fetch_one("count_prunable", _prunable(older_than, status, queue, name))
        assert row is not None
        return int(row["prunable"])

    async def find_work(self, worker_id: str, queues: Sequence[str]) -> Row:
        """What is left to do for a worker, see `find_work.sql`: busy, waiting, ended; for tests."""
        row = await self._runtime.fetch_one("find_work", {"worker_id": worker_id, "queues": [*queues]})
        assert row is not None
        return row

    async def find_submitted(self, name: str, *, max_rows: int) -> list[Row]:
        """The latest runs of an agent or a task: run_id, input; for tests."""
        return await self._runtime.fetch("find_submitted", {"name": name, "max_rows": max_rows})

    async def advance_moments(self, seconds: float) -> None:
        """Moves every moment of every row back, as if so much time had passed; for tests."""
        await self._runtime.fetch("advance_moments", {"seconds": seconds})

    async def queue_stats(self) -> list[Row]:
        """The view `queue_stats`."""
        return await self._runtime.fetch("get_queue_stats")

    async def set_queue(self, queue: str, limits: Mapping[str, Any]) -> None:
        """Sets limits of a queue, None is no limit; see `set_queue.sql`."""
        await self._runtime.fetch("set_queue", {"queue": queue, "limits": as_json(limits)})

    async def pause_queue(self, queue: str, seconds: float | None) -> None:
        """Lets nothing more of a queue start, for so many seconds; None: until it is resumed."""
        params = {"queue": queue, "seconds": None if seconds is None else str(seconds)}
        await self._runtime.fetch("pause_queue", params)

    async def resume_queue(self, queue: str) -> None:
        """Ends the pause of a queue."""
        await self._runtime.fetch("resume_queue", {"queue": queue})

    async def reason(self, run_id: str) -> str | None:
        """Why a run does not run, in words; None if it does, or has ended, or if there is none."""
        row = await self._runtime.fetch_one("get_reason", {"run_id": run_id})
        return None if row is None else row["why"]

    async def worker_status(self) -> list[Row]:
        """The view `worker_status` without those that have left."""
        return await self._runtime.fetch("get_worker_status")


def _failed(queue: str | None, name: str | None, error_type: str | None, since: float | None) -> dict[str, Any]:
    past = "" if since is None else str(since)
    return {"queue": queue or "", "name": name or "", "error_type": error_type or "", "since": past}


def _prunable(older_than: float, status: str | None, queue: str | None, name: str | None) -> dict[str, Any]:
    return {"older_than": older_than, "status": status or "", "queue": queue or "", "name": name or ""}
