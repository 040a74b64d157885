"""Every verb of the database, one method per file of `sql/queries`: what goes in, what comes out.

Workers and agents speak to the queue through this class only. Rows are dicts with the names of the columns.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from pydantic_core import to_json

from pgrun._ids import new_run_id
from pgrun.db._connection import Row
from pgrun.db._runtime import Runtime
from pgrun.db.placing import knows_queue, place
from pgrun.db.records import (
    FIRST,
    Claimed,
    DueSchedule,
    Ending,
    EventRow,
    Kept,
    LeftCall,
    Look,
    NewRun,
    NewSchedule,
    Page,
    Place,
    Placed,
    Position,
    TaskRun,
    Told,
    WorkerCard,
)


class Verbs:
    """The transitions and looks of one database in one event loop."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._queues = set[str]()

    async def knows(self, queue: str) -> bool:
        """Whether the queue exists; one that was found is not asked for again."""
        if queue not in self._queues:
            if not await knows_queue(self._runtime, queue):
                return False
            self._queues.add(queue)
        return True

    async def submit(self, run: NewRun) -> datetime | None:
        """Inserts a run; returns when it was created, None if one with its id was there before."""
        rows = await self._runtime.fetch_tuples("submit_run", _columns(run))
        return rows[0][0] if rows else None

    async def submit_call(self, like: NewRun, run_id: str, data: bytes) -> None:
        """Inserts a run like this one, which is of a task and without a session, with an id and an input (JSON) of its own."""
        await self._runtime.fetch_tuples("submit_call", {**_call(like), "run_id": run_id, "input": data.decode()})

    async def submit_calls(self, like: NewRun, run_ids: Sequence[str], inputs: bytes) -> None:
        """Inserts many runs like this one, which is of a task, with ids of their own and the members of a JSON array as input."""
        params: dict[str, Any] = {"run_ids": [*run_ids], "inputs": inputs.decode(), "session_id": like.session_id}
        await self._runtime.fetch_tuples("submit_calls", {**_call(like), **_turn(like), **params})

    async def place(self, like: NewRun, run_ids: Sequence[str], inputs: bytes, keys: Sequence[str]) -> list[Placed]:
        """Inserts runs under terms, or finds those that hold their keys; see `submit_runs.sql`."""
        return await place(self._runtime, like, run_ids, inputs, keys)

    async def submit_by_name(self, values: Mapping[str, Any]) -> str:
        """Submits like a person in psql: the declared agent of that name gives the rest; returns the run_id.

        Args:
            values: Parameters of `submit_by_name.sql`; JSON values as data. Without a run_id one is made here, so that
                a repeat after a lost connection submits nothing twice.
        """
        as_json = ("input", "metadata", "definition", "output_schema")
        given = {key: _json_or_none(value) if key in as_json else value for key, value in values.items()}
        said = {key: value and str(value) for key, value in given.items() if key in _AS_TEXT}
        params = {**dict.fromkeys((*_AS_TEXT, *_MAY_SAY)), **given, **said}
        params["run_id"] = params.get("run_id") or new_run_id()
        row = await self._runtime.fetch_one("submit_by_name", params)
        assert row is not None
        return str(row["run_id"])

    async def expire(self) -> tuple[int, float | None]:
        """Ends runs whose time is up; returns how many, and in how many seconds the next one may be, None if there is none."""
        ((ended, next_look),) = await self._runtime.fetch_tuples("expire_runs", {})
        return ended, next_look

    async def declare_agent(
        self,
        name: str,
        queue: str,
        definition: dict[str, Any] | None,
        output_schema: dict[str, Any] | None,
        max_attempts: int,
    ) -> None:
        """Records the latest definition of an agent."""
        await self._runtime.fetch(
            "declare_agent",
            {
                "name": name,
                "queue": queue,
                "definition": _json_or_none(definition),
                "output_schema": _json_or_none(output_schema),
                "max_attempts": max_attempts,
            },
        )

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
        *claimed, (next_look, *_) = await self._runtime.fetch_tuples("claim_limited", params)
        return Look(sorted((Claimed(*row[1:]) for row in claimed), key=_place), next_look)

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
                "error": _json(error),
                "metrics": _json_or_none(metrics),
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
                "error": _json_or_none(error),
                "metrics": _json_or_none(metrics),
                "keeps_call": keeps_call,
                "parks": parks,
            },
        )
        return {str(row["run_id"]) for row in rows}

    async def park(self, claimed: Claimed, *, metrics: dict[str, Any] | None) -> bool:
        """Puts a run aside until the runs that it has started have ended; False if the claim was stale."""
        params = {"run_id": claimed.run_id, "fence": claimed.fence, "metrics": _json_or_none(metrics)}
        ((is_held,),) = await self._runtime.fetch_tuples("park_run", params)
        return bool(is_held)

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
        params = {"number": number, "kind": kind, "name": name, "data": _json(data), "duration": duration}
        held = {"run_id": claimed.run_id, "fence": claimed.fence, "metrics": _json_or_none(metrics)}
        if changes:
            rows = await self._runtime.fetch_tuples("record_changes", {**params, **held, "changes": _json(changes)})
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
        noted = await self._runtime.fetch_tuples("write_progress", {"progress": _json(runs)})
        return {run_id for (run_id,) in noted}

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
            "data": _json_or_none(step["data"]),
            "run_id": ending.claimed.run_id,
            "fence": ending.claimed.fence,
            "heard": ending.heard,
            "metrics": _json_or_none(ending.metrics),
        }
        row = await self._runtime.fetch_one("release_unheard", params)
        return None if row is None else str(row["status"])

    async def steer(self, run_id: str, message: str) -> str:
        """Says something to an open run; returns its status."""
        params = {"run_id": run_id, "message": message, "message_id": str(uuid4())}
        row = await self._runtime.fetch_one("steer_run", params)
        assert row is not None
        return str(row["status"])

    async def begin_step(self, claimed: Claimed, *, number: int, name: str, times: int) -> bool:
        """Notes that a step begins whose repeat would do harm, and how often by now; False if the claim was stale."""
        held = {"run_id": claimed.run_id, "fence": claimed.fence}
        params = {**held, "number": number, "name": name, "times": times}
        return bool(await self._runtime.fetch_tuples("begin_step", params))

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
        facts = {"requirements": _json(requirements), "metrics": _json_or_none(metrics), "tools": _json_or_none(tools)}
        row = await self._runtime.fetch_one("pause_run", {**params, **facts})
        return None if row is None else str(row["status"])

    async def approve(self, run_id: str, decision: Mapping[str, Any]) -> str:
        """Decides on a call that a run waits for, or on all of them; returns the status that the run has now.

        Args:
            run_id: The run.
            decision: Parameters of `pgrun.approve` that are not left at their default: call_id, approved, note, result, input,
                decision_id, decided_by.
        """
        # Sent again after a lost connection it must not decide on what the run waits for by then.
        decided = {"decision_id": new_run_id()} | {name: value for name, value in decision.items() if value is not None}
        params = {"run_id": run_id, "decision": _json(decided)}
        row = await self._runtime.fetch_one("approve_run", params)
        assert row is not None
        return str(row["status"])

    async def decisions(self, run_id: str) -> tuple[list[Any], list[tuple[int, int]]]:
        """What a run has waited for, as JSON data; and the steps that have begun and not ended, with how often."""
        row = await self._runtime.fetch_one("get_decisions", {"run_id": run_id})
        if row is None:
            return [], []
        begun = row["begun"] or {}
        return row["requirements"] or [], [(int(step), call["times"]) for step, call in begun.items()]

    async def steps(self, run_id: str) -> list[Row]:
        """The journal of a run, in order: step, kind, name, data, duration in seconds."""
        return await self._runtime.fetch("get_steps", {"run_id": run_id})

    async def note_call(self, claimed: Claimed, number: int, response_id: str | None) -> bool:
        """Notes the call of the model that is under way, with the provider's id once it has one; False if the claim was stale."""
        held = {"run_id": claimed.run_id, "fence": claimed.fence}
        params = {**held, "number": number, "response_id": response_id or ""}
        return bool(await self._runtime.fetch_tuples("note_call", params))

    async def call_under_way(self, run_id: str) -> Row | None:
        """The call of the model that an earlier attempt has left: step, response_id; None if there is none."""
        return await self._runtime.fetch_one("get_call", {"run_id": run_id})

    async def take_left_calls(
        self, names: Sequence[str], *, queues: Sequence[str] = (), run_id: str = ""
    ) -> list[LeftCall]:
        """Answers that have to be stopped at their provider, of one run or of some queues; they are the caller's for a minute."""
        params = {"names": [*names], "queues": [*queues], "run_id": run_id}
        return [LeftCall(*row) for row in await self._runtime.fetch_tuples("take_left_calls", params)]

    async def forget_left_call(self, left: LeftCall, used: Mapping[str, float] = MappingProxyType({})) -> None:
        """Says that an answer has been stopped at its provider, and what it has used, as members of the run's metrics."""
        params = {"run_id": left.run_id, "response_id": left.response_id, "used": _json(dict(used))}
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
        params = {"session_id": session_id, "changes": _json(changes)}
        row = await self._runtime.fetch_one("change_session_state", params)
        assert row is not None
        state: dict[str, Any] = row["state"]
        return state

    async def watch(self, run_id: str) -> str:
        """Begins the stream of a run, if nobody has yet; returns its status."""
        row = await self._runtime.fetch_one("watch_run", {"run_id": run_id})
        assert row is not None
        return str(row["status"])

    async def last_events(self, run_ids: Sequence[str]) -> dict[str, int]:
        """The number of the last event of each of these runs, 0 where there is none."""
        return dict(await self._runtime.fetch_tuples("find_last_events", {"run_ids": [*run_ids]}))

    async def write_events(self, told: Collection[Told]) -> dict[str, bool]:
        """Adds events to streams; returns the runs still held, and whether theirs are written: if not, others lock them."""
        runs = (
            f'"{each.run_id}":{{"fence":{each.fence},"seq":{each.seq},"events":{each.events.decode()}}}'
            for each in told
        )
        return dict(await self._runtime.fetch_tuples("write_events", {"events": f"{{{','.join(runs)}}}"}))

    async def read_events(self, places: Collection[Place], *, page: int) -> dict[Place, Page]:
        """What comes after each of these places, at most `page` events; those where there is nothing new are left out."""
        params = {
            "run_ids": [place.run_id for place in places],
            "afters": [place.after for place in places],
            "page": page,
        }
        pages: dict[Place, Page] = {}
        for run_id, after, status, *event in await self._runtime.fetch_tuples("read_events", params):
            found = pages.setdefault(Place(run_id, after), Page([], status))
            if event[0] is not None:
                found.events.append(EventRow(*event))
        return pages

    async def answer_so_far(self, place: Place) -> list[str]:
        """The pieces of the answer that was under way at a place in a stream."""
        rows = await self._runtime.fetch_tuples("get_answer_so_far", place._asdict())
        return [text for (text,) in rows]

    async def prune_events(self, older_than: float, *, batch: int) -> int:
        """Deletes the events of up to `batch` runs that ended more than `older_than` seconds ago; returns of how many."""
        row = await self._runtime.fetch_one("prune_events", {"older_than": older_than, "batch": batch})
        assert row is not None
        return int(row["pruned"])

    async def rescue(self, worker_id: str) -> tuple[list[Row], float | None]:
        """Takes runs away from dead workers; returns them, and in how many seconds the next lease may run out."""
        rows = await self._runtime.fetch("rescue_runs", {"worker_id": worker_id})
        next_look = next((row["next_look"] for row in rows if row["run_id"] is None), None)
        return [row for row in rows if row["run_id"] is not None], next_look

    async def set_schedule(self, new: NewSchedule) -> None:
        """Adds a schedule, or changes the one of that name."""
        await self._runtime.fetch("set_schedule", _schedule(new))

    async def declare_schedule(self, new: NewSchedule) -> None:
        """Writes a schedule that code declares, if it is new or the code has changed; see `declare_schedule.sql`."""
        await self._runtime.fetch("declare_schedule", _schedule(new))

    async def due_schedules(self, most: int) -> tuple[list[DueSchedule], float | None]:
        """Schedules that a worker has to look at, at most so many; and in how many seconds the next tick of all comes, if any."""
        rows = await self._runtime.fetch_tuples("look_at_schedules", {"most": most})
        next_in: float | None = rows[0][-1]
        return [DueSchedule(*row[:-1]) for row in rows if row[0] is not None], next_in

    async def plan_schedule(self, due: DueSchedule, next_at: datetime | None, error: str = "") -> bool:
        """Says when a schedule comes round next, None: never again, or what is wrong with it; False if it has changed since."""
        return bool(await self._runtime.fetch("plan_schedule", {**_tick(due, next_at), "error": error}))

    async def fire_schedule(
        self, due: DueSchedule, ticks: Sequence[datetime], next_at: datetime | None
    ) -> list[str] | None:
        """Submits a run for each of these ticks of a schedule; returns their ids, None if the tick was not the caller's."""
        row = await self._runtime.fetch_one("fire_schedule", {**_tick(due, next_at), "ticks": [*ticks]})
        return None if row is None else row["run_ids"]

    async def remove_schedule(self, schedule: str) -> bool:
        """Removes a schedule; whether there was one."""
        row = await self._runtime.fetch_one("remove_schedule", {"schedule": schedule})
        return bool(row and row["removed"])

    async def pause_schedule(self, schedule: str) -> None:
        """A schedule fires nothing until it is resumed."""
        await self._runtime.fetch("pause_schedule", {"schedule": schedule})

    async def resume_schedule(self, schedule: str) -> None:
        """A paused schedule fires again."""
        await self._runtime.fetch("resume_schedule", {"schedule": schedule})

    async def run_schedule(self, schedule: str, run_id: str) -> None:
        """Submits a run of a schedule now, besides its ticks."""
        await self._runtime.fetch("run_schedule", {"schedule": schedule, "run_id": run_id})

    async def list_schedules(self, schedule: str = "") -> list[Row]:
        """Schedules by name, see `list_schedules.sql`; an empty name means all."""
        return await self._runtime.fetch("list_schedules", {"schedule": schedule})

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

    async def get(self, run_id: str) -> Row | None:
        """The whole row of a run."""
        return await self._runtime.fetch_one("get_run", {"run_id": run_id})

    async def cancel(self, run_id: str) -> str:
        """Cancels a run; `cancelled`, `cancelling`, or the status it had ended in."""
        row = await self._runtime.fetch_one("cancel_run", {"run_id": run_id})
        assert row is not None
        return str(row["state"])

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
        found = {"tags": [*tags], "metadata": _json({**metadata}), "max_rows": max_rows}
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

    async def forget_workers(self) -> int:
        """Deletes the rows of workers that have been gone for more than a day; returns how many."""
        row = await self._runtime.fetch_one("forget_workers")
        assert row is not None
        return int(row["forgotten"])

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
        await self._runtime.fetch("set_queue", {"queue": queue, "limits": _json(limits)})

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


_AS_TEXT = ("max_attempts", "due_at", "expires", "deadline", "timeout", "key_period", "max_delay")
_MAY_SAY = ("multitask", "tags", "key", "key_scope", "on_duplicate", "concurrency_key", "weight")
"""Parameters of `submit_by_name.sql` that may be left out; those above are compared with an empty text there."""


def _place(run: Claimed) -> tuple[int, float, str]:
    return run.priority, run.due_at, run.run_id


def _columns(run: NewRun) -> dict[str, Any]:
    """The parameters of `submit_run.sql`."""
    columns = run._asdict()
    columns["input"] = _json(run.input)
    columns["definition"] = _json_or_none(run.definition)
    columns["output_schema"] = _json_or_none(run.output_schema)
    columns["context"] = _json_or_none(run.context)
    columns["metadata"] = _json(run.metadata) if run.metadata else "{}"
    return {**columns, **_turn(run)}


def _call(like: NewRun) -> dict[str, Any]:
    """The parameters of `submit_call.sql` that are not the call's own."""
    return {
        "name": like.name,
        "queue": like.queue,
        "priority": like.priority,
        "delay": like.delay,
        "max_attempts": like.max_attempts,
        "metadata": _json(like.metadata) if like.metadata else "{}",
    }


def _turn(like: NewRun) -> dict[str, Any]:
    """What the limits of its queue have to know of a run."""
    return {"concurrency_key": like.concurrency_key, "weight": None if like.weight is None else str(like.weight)}


def _schedule(new: NewSchedule) -> dict[str, Any]:
    """The parameters of `set_schedule.sql` and `declare_schedule.sql`."""
    return {
        **new._asdict(),
        "input": _json(new.input),
        "cron": new.cron or "",
        "every": "" if new.every is None else str(new.every.total_seconds()),
        "at": "" if new.at is None else new.at.isoformat(),
        "options": _json(new.options),
    }


def _tick(due: DueSchedule, next_at: datetime | None) -> dict[str, Any]:
    """The tick of a schedule that a worker looks at, and the one that follows."""
    return {
        "schedule": due.schedule,
        "changed_at": due.changed_at,
        "expected": "" if due.next_at is None else due.next_at.isoformat(),
        "next_at": "" if next_at is None else next_at.isoformat(),
    }


def _ending(ending: Ending) -> str:
    """One member of the object that `finish_runs.sql` takes; written by hand, so that an output that is JSON stays as it is."""
    members = [f'"{ending.claimed.run_id}":{{"fence":{ending.claimed.fence},"status":"{ending.status}"']
    if ending.status == "completed":
        members.append(f'"output":{_json(ending.output)}')
    if ending.content_type is not None:
        members.append(f'"content_type":{_json(ending.content_type)}')
    if ending.error is not None:
        members.append(f'"error":{_json(ending.error)}')
    if ending.metrics is not None:
        members.append(f'"metrics":{_json(ending.metrics)}')
    if ending.tools is not None:
        members.append(f'"tools":{_json(ending.tools)}')
    if ending.keeps_call:
        members.append('"call":true')
    if ending.heard:
        members.append(f'"heard":{ending.heard}')
    return ",".join(members) + "}"


def _failed(queue: str | None, name: str | None, error_type: str | None, since: float | None) -> dict[str, Any]:
    past = "" if since is None else str(since)
    return {"queue": queue or "", "name": name or "", "error_type": error_type or "", "since": past}


def _prunable(older_than: float, status: str | None, queue: str | None, name: str | None) -> dict[str, Any]:
    return {"older_than": older_than, "status": status or "", "queue": queue or "", "name": name or ""}


def _json(value: Any) -> str:
    """JSON text; bytes are that already."""
    return value.decode() if isinstance(value, bytes) else to_json(value).decode()


def _json_or_none(value: Any) -> str | None:
    return None if value is None else _json(value)
