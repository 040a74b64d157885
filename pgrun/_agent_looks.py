"""How an agent looks at its runs: as they stand, and what happens to them."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar, overload

from pgrun._agent_declared import Declared
from pgrun._agent_runs import read, schema_of
from pgrun._ids import check_run_id
from pgrun._sync import iterate_sync, run_sync
from pgrun.db.waiting import not_found
from pgrun.run.base import RunOutput
from pgrun.run.event import RunEvent, check_after
from pgrun.run.output import OutputSchema
from pgrun.run.partial import shape_of
from pgrun.streaming import read_events

S = TypeVar("S")


class Looks(Declared):
    """These methods of `Agent`."""

    @overload
    async def aget_run_output(
        self, run_id: str, session_id: str | None = None, *, output_schema: type[S]
    ) -> RunOutput[S] | None: ...
    @overload
    async def aget_run_output(
        self, run_id: str, session_id: str | None = None, *, output_schema: Any = None
    ) -> RunOutput[Any] | None: ...
    async def aget_run_output(
        self, run_id: str, session_id: str | None = None, *, output_schema: Any = None
    ) -> RunOutput[Any] | None:
        """The run as it stands now, or None if there is none.

        Args:
            run_id: Its id.
            session_id: Only if it belongs to this session.
            output_schema: Type of `content`. By default the agent's, if the run was made with it; else content is the JSON
                data or text as stored.

        Raises:
            OutputInvalid: The stored content does not fit `output_schema`.
        """
        db = self._needs_db()
        row = await (await db.connected()).verbs.get(check_run_id(run_id))
        if row is None or (session_id is not None and row["session_id"] != session_id):
            return None
        return read(db, row, schema_of(output_schema) or self._schema_for(row))

    @overload
    def get_run_output(
        self, run_id: str, session_id: str | None = None, *, output_schema: type[S]
    ) -> RunOutput[S] | None: ...
    @overload
    def get_run_output(
        self, run_id: str, session_id: str | None = None, *, output_schema: Any = None
    ) -> RunOutput[Any] | None: ...
    def get_run_output(
        self, run_id: str, session_id: str | None = None, *, output_schema: Any = None
    ) -> RunOutput[Any] | None:
        """The same as `aget_run_output`, for code without an event loop."""
        return run_sync(partial(self.aget_run_output, run_id, session_id, output_schema=output_schema))

    async def aevents(self, run_id: str, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        """What happens to a run; else as `RunOutput.aevents`.

        Args:
            run_id: Its id.
            after: The `seq` of the last event you have seen, to go on behind it; 0 for all of them.
        """
        db, after = self._needs_db(), check_after(after)
        row = await (await db.connected()).verbs.get(check_run_id(run_id))
        if row is None:
            raise not_found(run_id)
        schema = self._schema_for(row)
        if schema is None and row["output_schema"] is not None:
            schema = OutputSchema.from_json(row["output_schema"])
        async with aclosing(read_events(db, str(row["run_id"]), after, shape_of(schema))) as events:
            async for event in events:
                yield event

    def events(self, run_id: str, after: int = 0) -> Iterator[RunEvent]:
        """The same as `aevents`, for code without an event loop."""
        return iterate_sync(self.aevents, run_id, after)
