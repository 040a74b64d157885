"""How a row becomes what a caller of an agent holds: a `RunOutput` with its typed content, and the way to its end."""

import time
from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from typing import Any

from pydantic_core import to_json

from pgrun import _hosting
from pgrun._reaching import Reaches
from pgrun.db.postgres import PostgresDb
from pgrun.db.records import NewRun
from pgrun.run.base import RunOutput, output_from_row, result_of
from pgrun.run.event import RunEvent
from pgrun.run.output import OutputSchema, known_type
from pgrun.run.partial import shape_of
from pgrun.streaming import read_events

Row = Mapping[str, Any]


class Handle(Reaches):
    """How a `RunOutput` reaches its run."""

    def __init__(self, db: PostgresDb, schema: OutputSchema[Any] | None, *, since: float = 0.0) -> None:
        self._db = db
        self.schema = schema
        self._since = since

    async def cancel(self, run_id: str) -> bool:
        cancelled = await _hosting.cancel_run(run_id)  # which has providers stop, too
        return await super().cancel(run_id) if cancelled is None else cancelled

    def read(self, row: Row) -> RunOutput[Any]:
        return read(self._db, row, self.schema)

    def events(self, run_id: str, after: int) -> AsyncGenerator[RunEvent, None]:
        return read_events(self._db, run_id, after, shape_of(self.schema))

    async def settle(self, run_id: str) -> RunOutput[Any]:
        """The run once it has ended or waits for a person."""
        row = await self._db.wait_for(run_id, None, or_paused=True, since=self._since)
        return self.read(row)


async def settled(run: RunOutput[Any]) -> RunOutput[Any]:
    """The run once it has ended or waits for a person."""
    if run.status.is_final:
        return run
    assert isinstance(run._handle, Handle)
    return await run._handle.settle(run.run_id)


def checked(run: RunOutput[Any]) -> RunOutput[Any]:
    """The run itself if it has completed or is paused; else raises what became of it."""
    if not run.is_paused:
        result_of(run)
    return run


def submitted(run: NewRun, created_at: datetime | None, handle: Handle) -> RunOutput[Any]:
    output: RunOutput[Any] = RunOutput(
        run_id=run.run_id,
        session_id=run.session_id,
        agent_name=run.name,
        content_type=run.content_type,
        input=run.input,
        created_at=created_at,
        parent_run_id=run.parent_run_id,
        metadata=run.metadata,
    )
    output._handle = handle
    return output


async def place(db: PostgresDb, run: NewRun, schema: OutputSchema[Any] | None) -> RunOutput[Any]:
    """Submits a run under its terms; returns it, or the one that holds its key."""
    assert run.terms is not None
    began, keys = time.monotonic(), [run.terms.key] if run.terms.key else []
    (placed,) = await db.place(run, [run.run_id], to_json([run.input]), keys)
    if placed.is_new:
        return submitted(run, placed.submitted_at, Handle(db, schema, since=began))
    row = await (await db.connected()).verbs.get(placed.run_id)
    # Of one that was submitted in the same transaction, and is not committed yet, no more is known.
    known = (
        submitted(run._replace(run_id=placed.run_id), None, Handle(db, schema))
        if row is None
        else read(db, row, schema)
    )
    known.duplicate = placed.run_id != run.run_id or run.chosen_id
    return known


def read(db: PostgresDb, row: Row, schema: OutputSchema[Any] | None) -> RunOutput[Any]:
    content = row["output"]
    if row["status"] == "completed" and schema is not None:
        content = schema.load(content)
    return output_from_row(row, content, Handle(db, schema))


def schema_of(output_schema: Any) -> OutputSchema[Any] | None:
    if output_schema is None:
        return None
    if isinstance(output_schema, dict):
        return known_type(output_schema) or OutputSchema.from_json(output_schema)
    return OutputSchema.of(output_schema)
