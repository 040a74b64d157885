"""Submitting: runs and the agents that they are made with."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pgrun._ids import new_run_id
from pgrun.db.placing import as_inputs, knows_queue, place
from pgrun.db.records import NewRun, Placed
from pgrun.db.verbs._base import Base, as_json, as_json_or_none


class Submits(Base):
    """These verbs."""

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
        await self._runtime.fetch_tuples("submit_call", {**_call(like), "run_id": run_id, "input": as_inputs(data)})

    async def submit_calls(self, like: NewRun, run_ids: Sequence[str], inputs: bytes) -> None:
        """Inserts many runs like this one, which is of a task, with ids of their own and the members of a JSON array as input."""
        params: dict[str, Any] = {"run_ids": [*run_ids], "inputs": as_inputs(inputs), "session_id": like.session_id}
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
        given = {key: as_json_or_none(value) if key in as_json else value for key, value in values.items()}
        said = {key: value and str(value) for key, value in given.items() if key in _AS_TEXT}
        params = {**dict.fromkeys((*_AS_TEXT, *_MAY_SAY)), **given, **said}
        params["run_id"] = params.get("run_id") or new_run_id()
        row = await self._runtime.fetch_one("submit_by_name", params)
        assert row is not None
        return str(row["run_id"])

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
                "definition": as_json_or_none(definition),
                "output_schema": as_json_or_none(output_schema),
                "max_attempts": max_attempts,
            },
        )


_AS_TEXT = ("max_attempts", "due_at", "expires", "deadline", "timeout", "key_period", "max_delay")
_MAY_SAY = ("multitask", "tags", "key", "key_scope", "on_duplicate", "concurrency_key", "weight")
"""Parameters of `submit_by_name.sql` that may be left out; those above are compared with an empty text there."""


def _columns(run: NewRun) -> dict[str, Any]:
    """The parameters of `submit_run.sql`."""
    columns = run._asdict()
    columns["input"] = as_json(run.input)
    columns["definition"] = as_json_or_none(run.definition)
    columns["output_schema"] = as_json_or_none(run.output_schema)
    columns["context"] = as_json_or_none(run.context)
    columns["metadata"] = as_json(run.metadata) if run.metadata else "{}"
    return {**columns, **_turn(run)}


def _call(like: NewRun) -> dict[str, Any]:
    """The parameters of `submit_call.sql` that are not the call's own."""
    return {
        "name": like.name,
        "queue": like.queue,
        "priority": like.priority,
        "delay": like.delay,
        "max_attempts": like.max_attempts,
        "metadata": as_json(like.metadata) if like.metadata else "{}",
    }


def _turn(like: NewRun) -> dict[str, Any]:
    """What the limits of its queue have to know of a run."""
    return {"concurrency_key": like.concurrency_key, "weight": None if like.weight is None else str(like.weight)}
