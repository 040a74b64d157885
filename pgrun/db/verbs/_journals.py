"""The journal of a run, the calls that are under way, and what its session remembers."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pgrun.db._connection import Row
from pgrun.db.records import Claimed, Kept, LeftCall, TaskRun, Unfinished
from pgrun.db.verbs._base import Base, as_json, as_json_or_none


class Journals(Base):
    """These verbs."""

    async def record_step(
        self,
        claimed: Claimed,
        *,
        number: int,
        kind: str,
        name: str,
        data: Any,
        duration: float,
        metrics: dict[str, Any] | None,
        changes: Sequence[Mapping[str, Any]] = (),
    ) -> "Kept | None":
        """Adds a step to the journal of a run, and what the run has used until then; None if the claim was stale.

        With `changes` of the state of its session, see `change_session_state.sql`, which are made if the step is new.
        """
        params = {"number": number, "kind": kind, "name": name, "data": as_json(data), "duration": duration}
        held = {"run_id": claimed.run_id, "fence": claimed.fence, "metrics": as_json_or_none(metrics)}
        if changes:
            rows = await self._runtime.fetch_tuples("record_changes", {**params, **held, "changes": as_json(changes)})
        else:
            rows = await self._runtime.fetch_tuples("record_step", {**params, **held})
        return Kept(*rows[0]) if rows else None

    async def record_sleep(self, claimed: Claimed, *, number: int, name: str, seconds: float) -> float | None:
        """Records as a step that a run sleeps for so long; returns the seconds that are left, None if the claim was stale."""
        held = {"run_id": claimed.run_id, "fence": claimed.fence}
        params = {**held, "number": number, "name": name, "seconds": seconds}
        row = await self._runtime.fetch_one("record_sleep", params)
        return None if row is None else float(row["remaining"])

    async def task_run(self, run_id: str) -> TaskRun:
        """What a task that asks for its context is told; nothing, if the run has been deleted meanwhile."""
        rows = await self._runtime.fetch("get_task_run", {"run_id": run_id})
        return TaskRun(rows[0]["metadata"] if rows else {}, [row for row in rows if row["step"] is not None])

    async def attempts(self, run_id: str) -> list[Row]:
        """What went wrong with a run, the oldest first; see `get_attempts.sql`."""
        return await self._runtime.fetch("get_attempts", {"run_id": run_id})

    async def write_progress(self, progress: Mapping[tuple[str, int], Mapping[str, Any]]) -> set[str]:
        """Notes how far runs have come, by run_id and fence, 200 at most; returns the ids of those that are noted."""
        runs = {run_id: {"fence": fence, "progress": said} for (run_id, fence), said in progress.items()}
        noted = await self._runtime.fetch_tuples("write_progress", {"progress": as_json(runs)})
        return {run_id for (run_id,) in noted}

    async def begin_step(self, claimed: Claimed, *, number: int, name: str, times: int) -> bool:
        """Notes that a step begins whose repeat would do harm, and how often by now; False if the claim was stale."""
        held = {"run_id": claimed.run_id, "fence": claimed.fence}
        params = {**held, "number": number, "name": name, "times": times}
        return bool(await self._runtime.fetch_tuples("begin_step", params))

    async def unfinished(self, run_id: str) -> Unfinished:
        """What earlier attempts have left unfinished; nothing, if the run has been deleted meanwhile."""
        row = await self._runtime.fetch_one("get_unfinished", {"run_id": run_id})
        if row is None:
            return Unfinished([], {}, None)
        begun = {int(step): call["times"] for step, call in (row["begun"] or {}).items()}
        return Unfinished(row["requirements"] or [], begun, row["call"])

    async def steps(self, run_id: str) -> list[Row]:
        """The journal of a run, in order: step, kind, name, data, duration in seconds."""
        return await self._runtime.fetch("get_steps", {"run_id": run_id})

    async def note_call(self, claimed: Claimed, number: int, response_id: str | None) -> bool:
        """Notes the call of the model that is under way, with the provider's id once it has one; False if the claim was stale."""
        held = {"run_id": claimed.run_id, "fence": claimed.fence}
        params = {**held, "number": number, "response_id": response_id or ""}
        return bool(await self._runtime.fetch_tuples("note_call", params))

    async def take_left_calls(
        self, names: Sequence[str], *, queues: Sequence[str] = (), run_id: str = ""
    ) -> list[LeftCall]:
        """Answers that have to be stopped at their provider, of one run or of some queues; they are the caller's for a minute."""
        params = {"names": [*names], "queues": [*queues], "run_id": run_id}
        return [LeftCall(*row) for row in await self._runtime.fetch_tuples("take_left_calls", params)]

    async def forget_left_call(self, left: LeftCall, used: Mapping[str, float] = MappingProxyType({})) -> None:
        """Says that an answer has been stopped at its provider, and what it has used, as members of the run's metrics."""
        params = {"run_id": left.run_id, "response_id": left.response_id, "used": as_json(dict(used))}
        await self._runtime.fetch("forget_left_call", params)

    async def history(self, session_id: str, *, before: str, runs: int, with_steps: bool = False) -> list[Row]:
        """The last so many runs of a session that count and come before a run, the earliest first; see `get_history.sql`."""
        params = {"session_id": session_id, "run_id": before, "runs": runs, "with_steps": with_steps}
        return (await self._runtime.fetch("get_history", params))[::-1]

    async def session_state(self, session_id: str) -> dict[str, Any]:
        """The state of a session; empty if there is no such session."""
        row = await self._runtime.fetch_one("get_session_state", {"session_id": session_id})
        return row["state"] if row else {}

    async def change_session_state(self, session_id: str, changes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Changes it piece by piece and returns it; see `change_session_state.sql`."""
        params = {"session_id": session_id, "changes": as_json(changes)}
        row = await self._runtime.fetch_one("change_session_state", params)
        assert row is not None
        state: dict[str, Any] = row["state"]
        return state
