"""What workers do with the runs that they claim, and with those of others."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pgrun.db._connection import Row
from pgrun.db.records import FIRST, Claimed, Ending, Look, Position, WorkerCard
from pgrun.db.verbs._base import Base, as_json, as_json_or_none


class Works(Base):
    """These verbs."""

    async def claim(
        self,
        worker_id: str,
        queues: Sequence[str],
        names: Sequence[str],
        slots: int,
        *,
        yields: bool,
        horizon: float,
        positions: Mapping[str, Position] = MappingProxyType({}),
    ) -> Look:
        """Takes up to `slots` due runs; with `yields` none that a live daemon could execute, and none of a queue with limits.

        The next run that is due counts if it is within `horizon` seconds.

        Args:
            worker_id: Whose they will be.
            queues: Where to look.
            names: What the worker can execute although it does not travel with the run.
            slots: How many at most.
            yields: Whether to step back from live daemons.
            horizon: Seconds.
            positions: Where to begin in a queue; by default at the first run.
        """
        begin = [positions.get(queue, FIRST) for queue in queues]
        rows = await self._runtime.fetch_tuples(
            "claim_runs",
            {
                "worker_id": worker_id,
                "queues": [*queues],
                "from_priorities": [priority for priority, _ in begin],
                "from_dues": [due_at for _, due_at in begin],
                "names": [*names],
                "slots": slots,
                "yields": yields,
                "horizon": horizon,
            },
        )
        next_due, *_, apart = rows[0]
        claimed = [Claimed(*row[1:-1]) for row in rows if row[1] is not None]
        return Look(sorted(claimed, key=_place), next_due, apart or {})

    async def claim_limited(
        self, worker_id: str, queue: str, names: Sequence[str], slots: int, *, yields: bool
    ) -> Look:
        """Like `claim`, from one queue with limits, or whose runs take turns."""
        params = {"worker_id": worker_id, "queue": queue, "names": [*names], "slots": slots, "yields": yields}
        *claimed, (next_look, waited, *_) = await self._runtime.fetch_tuples("claim_limited", params)
        return Look(sorted((Claimed(*row[2:]) for row in claimed), key=_place), next_look, waited=waited)

    async def claim_woken(self, worker_id: str, queue: str, names: Sequence[str], slots: int) -> list[Claimed]:
        """Like `claim`, faster: due runs of one queue, from the first, that the worker can execute for certain."""
        rows = await self._runtime.fetch_tuples(
            "claim_woken", {"worker_id": worker_id, "queue": queue, "names": [*names], "slots": slots}
        )
        return sorted((Claimed(*row) for row in rows), key=_place)

    async def finish(self, endings: Sequence[Ending]) -> set[str]:
        """Writes endings; returns the ids of the runs that now stand as written, the others were stale."""
        params = {"endings": f"{{{','.join(map(_ending, endings))}}}"}
        written = await self._runtime.fetch_tuples("finish_runs", params)
        if len(written) < len(endings):  # stale, or repeated after an answer was lost
            written += await self._runtime.fetch_tuples("find_endings", params)
        return {run_id for (run_id,) in written}

    async def retry(
        self,
        claimed: Claimed,
        *,
        delay: float,
        error: dict[str, Any],
        metrics: dict[str, Any] | None,
        keeps_call: bool = False,
    ) -> str | None:
        """Makes a run due again in `delay` seconds; returns its status, None if the claim was stale.

        With `keeps_call` the next attempt takes up the call of the model that is under way.
        """
        row = await self._runtime.fetch_one(
            "retry_run",
            {
                "run_id": claimed.run_id,
                "fence": claimed.fence,
                "delay": delay,
                "error": as_json(error),
                "metrics": as_json_or_none(metrics),
                "keeps_call": keeps_call,
            },
        )
        return None if row is None else str(row["status"])

    async def release(
        self,
        held: Sequence[tuple[str, int]],
        *,
        delay: float = 0.0,
        error: dict[str, Any] | None = None,
        metrics: dict[str, Any] | None = None,
        keeps_call: bool = True,
        parks: bool = False,
    ) -> set[str]:
        """Gives runs, as pairs of run_id and fence, back uncounted; returns the ids of those that were still ours.

        Without `error` or `metrics` the rows keep theirs; `keeps_call` as for `retry`; with `parks` only to wait for a provider.
        """
        rows = await self._runtime.fetch(
            "release_runs",
            {
                "run_ids": [run_id for run_id, _ in held],
                "fences": [fence for _, fence in held],
                "delay": delay,
                "error": as_json_or_none(error),
                "metrics": as_json_or_none(metrics),
                "keeps_call": keeps_call,
                "parks": parks,
            },
        )
        return {str(row["run_id"]) for row in rows}

    async def release_unheard(self, ending: Ending) -> str | None:
        """Gives back a run that must not end before it has heard what was said to it; its status, None if it is not so."""
        step = (ending.answer and ending.answer()) or {
            "number": None,
            "kind": "",
            "name": "",
            "data": None,
            "duration": 0,
        }
        params = {
            **step,
            "number": step["number"] and str(step["number"]),
            "data": as_json_or_none(step["data"]),
            "run_id": ending.claimed.run_id,
            "fence": ending.claimed.fence,
            "heard": ending.heard,
            "metrics": as_json_or_none(ending.metrics),
        }
        row = await self._runtime.fetch_one("release_unheard", params)
        return None if row is None else str(row["status"])

    async def park(self, claimed: Claimed, *, metrics: dict[str, Any] | None) -> bool:
        """Puts a run aside until the runs that it has started have ended; False if the claim was stale."""
        params = {"run_id": claimed.run_id, "fence": claimed.fence, "metrics": as_json_or_none(metrics)}
        ((is_held,),) = await self._runtime.fetch_tuples("park_run", params)
        return bool(is_held)

    async def pause(
        self,
        claimed: Claimed,
        requirements: list[dict[str, Any]],
        *,
        holds_session: bool,
        metrics: dict[str, Any] | None,
        tools: list[dict[str, Any]] | None,
    ) -> str | None:
        """Pauses a run until people have decided; returns its status, None if the claim was stale.

        Args:
            claimed: The run.
            requirements: All that it has waited for, as `jobs.requirements` has it; those without a decision are open.
            holds_session: Whether its session waits for it.
            metrics: What it has used until now.
            tools: What it has called.
        """
        params = {"run_id": claimed.run_id, "fence": claimed.fence, "holds_session": holds_session}
        facts = {
            "requirements": as_json(requirements),
            "metrics": as_json_or_none(metrics),
            "tools": as_json_or_none(tools),
        }
        row = await self._runtime.fetch_one("pause_run", {**params, **facts})
        return None if row is None else str(row["status"])

    async def expire(self) -> tuple[int, float | None]:
        """Ends runs whose time is up; returns how many, and in how many seconds the next one may be, None if there is none."""
        ((ended, next_look),) = await self._runtime.fetch_tuples("expire_runs", {})
        return ended, next_look

    async def rescue(self, worker_id: str) -> tuple[list[Row], float | None]:
        """Takes runs away from dead workers; returns them, and in how many seconds the next lease may run out."""
        rows = await self._runtime.fetch("rescue_runs", {"worker_id": worker_id})
        next_look = next((row["next_look"] for row in rows if row["run_id"] is None), None)
        return [row for row in rows if row["run_id"] is not None], next_look

    async def open_sessions(self) -> None:
        """Lets held runs go on for which nothing is open any more, in their session or among their children."""
        await self._runtime.fetch("open_sessions")

    async def strays(self, worker_id: str, older_than: float) -> list[tuple[str, int]]:
        """Runs, as pairs of run_id and fence, that the database says the worker has held for longer than that many seconds."""
        rows = await self._runtime.fetch("find_strays", {"worker_id": worker_id, "older_than": older_than})
        return [(str(row["run_id"]), row["fence"]) for row in rows]

    async def register_worker(self, card: WorkerCard, queues: Sequence[str], names: Sequence[str]) -> None:
        """Makes a worker known, or the queues and names it serves now."""
        await self._runtime.fetch("register_worker", {**card.__dict__, "queues": [*queues], "names": [*names]})

    async def promise_looks(self, worker_id: str, seconds: float, *, hands_over: bool = False) -> None:
        """Says for how many seconds a worker looks for runs by itself, 0 for no longer; see `promise_looks.sql`."""
        params = {"worker_id": worker_id, "seconds": seconds, "hands_over": hands_over}
        await self._runtime.fetch_tuples("promise_looks", params)

    async def stop_worker(self, worker_id: str, *, within: float = 5.0) -> set[str]:
        """Says goodbye within so many seconds, on a connection of its own; returns the ids of the runs given back."""
        rows = await self._runtime.fetch_directly("stop_worker", {"worker_id": worker_id}, within=within)
        return {str(row["run_id"]) for row in rows}

    async def is_served(self, queue: str, names: Sequence[str] = ()) -> bool:
        """Whether a live daemon serves the queue that has imported all of these tasks and agents with tools."""
        row = await self._runtime.fetch_one("is_served", {"queue": queue, "names": [*names]})
        return bool(row and row["served"])

    async def forget_workers(self) -> int:
        """Deletes the rows of workers that have been gone for more than a day; returns how many."""
        row = await self._runtime.fetch_one("forget_workers")
        assert row is not None
        return int(row["forgotten"])


def _place(run: Claimed) -> tuple[int, float, str]:
    return run.priority, run.due_at, run.run_id


def _ending(ending: Ending) -> str:
    """One member of the object that `finish_runs.sql` takes; written by hand, so that an output that is JSON stays as it is."""
    members = [f'"{ending.claimed.run_id}":{{"fence":{ending.claimed.fence},"status":"{ending.status}"']
    if ending.status == "completed":
        members.append(f'"output":{as_json(ending.output)}')
    if ending.content_type is not None:
        members.append(f'"content_type":{as_json(ending.content_type)}')
    if ending.error is not None:
        members.append(f'"error":{as_json(ending.error)}')
    if ending.metrics is not None:
        members.append(f'"metrics":{as_json(ending.metrics)}')
    if ending.tools is not None:
        members.append(f'"tools":{as_json(ending.tools)}')
    if ending.keeps_call:
        members.append('"call":true')
    if ending.heard:
        members.append(f'"heard":{ending.heard}')
    return ",".join(members) + "}"
