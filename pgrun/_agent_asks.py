"""How an agent is asked: a request becomes a run, which is stored, seen to its end where somebody waits, or told as it goes."""

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any

import anyio

from pgrun._agent_declared import Declared
from pgrun._agent_runs import Handle, checked, place, read, schema_of, settled, submitted
from pgrun._agents_here import cancel, check_name_is_its_own
from pgrun.db.postgres import PostgresDb
from pgrun.db.records import NewRun
from pgrun.errors import PgrunError, SessionBusy, UsageError
from pgrun.run._storable import to_jsonable
from pgrun.run.base import RunOutput, result_of
from pgrun.run.cancel import is_unwanted
from pgrun.run.event import RunEvent
from pgrun.run.inline import check_nobody_is_waited_for, execute_here
from pgrun.run.inline_stream import stream_here
from pgrun.run.options import AgentRunOptions, Choices
from pgrun.run.output import OutputSchema

_NEVER = 86_400.0 * 365


class Asks(Declared):
    """These methods of `Agent`."""

    def child(self, request: str, *, run_id: str, parent_run_id: str, priority: int) -> NewRun:
        """The run by which another run asks this agent; workers submit it."""
        choices = self._choose({"run_id": run_id, "priority": priority})
        run = self._new_run(request, self.output_schema, choices)
        return run._replace(parent_run_id=parent_run_id)

    def template(self, input: Any, options: Mapping[str, Any]) -> NewRun:
        """What the runs of a schedule are like; each has a session of its own unless one was chosen.

        Raises:
            UsageError: The input or an option cannot be.
        """
        data, schema, choices = self._checked(input, None, options)  # type: ignore[arg-type]
        run = self._new_run(data, schema, choices)
        return run._replace(run_id=options.get("run_id") or "", session_id=options.get("session_id"))

    async def _ask(
        self, input: Any, output_schema: Any, options: AgentRunOptions, *, background: bool, streams: bool
    ) -> RunOutput[Any]:
        data, schema, choices = self._checked(input, output_schema, options)
        if self.db is None:
            if background:
                raise UsageError(
                    f'Agent "{self.name}" has no db: background runs need one, for example PostgresDb("embedded:")'
                )
            return await execute_here(self.name, self.definition, schema, data, choices)
        run = self._new_run(data, schema, choices)._replace(streams=streams)
        if background:
            return await self._submit(self.db, run, schema)
        _refuse_conn(choices)
        return await self._complete(self.db, run, schema)

    def _tell(self, input: Any, output_schema: Any, options: AgentRunOptions) -> AsyncGenerator[RunEvent, None]:
        data, schema, choices = self._checked(input, output_schema, options)
        if self.db is None:
            return stream_here(self.name, self.definition, schema, data, choices)
        _refuse_conn(choices)
        run = self._new_run(data, schema, choices)._replace(streams=True)
        return self._stream(self.db, run, schema)

    def _checked(
        self, input: Any, output_schema: Any, options: AgentRunOptions
    ) -> tuple[Any, OutputSchema[Any] | None, Choices]:
        choices = self._choose(options)
        data, schema = to_jsonable(input), schema_of(output_schema) or self.output_schema
        if self.db is None:
            check_nobody_is_waited_for(self.name, self.definition.tools)
            if choices.multitask:
                raise UsageError(f'Agent "{self.name}" has no db, so no session is ever busy: multitask= needs one')
            if choices.terms:
                raise UsageError(
                    f'Agent "{self.name}" has no db: without one, runs have no {", ".join(choices.terms.said)}'
                )
        return data, schema, choices

    def _new_run(self, data: Any, schema: OutputSchema[Any] | None, choices: Choices) -> NewRun:
        return NewRun(
            **vars(choices),
            kind="agent",
            name=self.name,
            input=data,
            session_table=self.db.session_table if self.db and self.db.session_table != "sessions" else None,
            definition=self.stored_definition,
            output_schema=schema.json_schema if schema else None,
            content_type=schema.name if schema else "str",
        )

    async def _submit(self, db: PostgresDb, run: NewRun, schema: OutputSchema[Any] | None) -> RunOutput[Any]:
        check_name_is_its_own(self)
        if db not in self._declared_in:
            await self.adeclare()
        if run.terms is not None and not is_unwanted(run.run_id):
            return await place(db, run, schema)
        began = time.monotonic()
        if is_unwanted(run.run_id):  # stored all the same, so that whoever asks for it finds out what became of it
            created_at = await db.submit(run._replace(delay=_NEVER))
            await cancel(db, run.run_id)
        else:
            created_at = await db.submit(run)
        if created_at is None:  # submitted before under this run_id: the answer to an idempotent caller
            row = await (await db.connected()).verbs.get(run.run_id)
            if row is not None:
                known: RunOutput[Any] = read(db, row, schema)
                known.duplicate = run.chosen_id
                return known
        return submitted(run, created_at, Handle(db, schema, since=began))

    async def _complete(self, db: PostgresDb, run: NewRun, schema: OutputSchema[Any] | None) -> RunOutput[Any]:
        try:
            ended = await settled(await self._submit(db, run, schema))
        except (UsageError, SessionBusy):  # nothing was submitted
            raise
        except BaseException:
            await _cancel_unheard(db, run.run_id)
            raise
        return checked(ended)

    async def _stream(
        self, db: PostgresDb, run: NewRun, schema: OutputSchema[Any] | None
    ) -> AsyncGenerator[RunEvent, None]:
        try:
            submitted = await self._submit(db, run, schema)
            async with aclosing(submitted.aevents()) as events:
                async for event in events:
                    yield event
        except (UsageError, SessionBusy):  # nothing was submitted
            raise
        except BaseException:
            await _cancel_unheard(db, run.run_id)
            raise
        row = await (await db.connected()).verbs.get(run.run_id)
        if row is not None and row["finished_at"] is not None:
            result_of(read(db, row, schema))


def _refuse_conn(choices: Choices) -> None:
    if choices.terms is not None and choices.terms.conn is not None:
        raise UsageError("conn= is for background=True: a run is not executed before your transaction is committed")


async def _cancel_unheard(db: PostgresDb, run_id: str) -> None:
    """Nobody waits for a foreground run any more: what it would still cost is saved.

    Also after a submit that was cancelled, since nobody can say whether it came before the commit.
    """
    with anyio.move_on_after(5, shield=True), suppress(PgrunError):
        await cancel(db, run_id)
