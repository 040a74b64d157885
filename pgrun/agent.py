"""`Agent`: what users declare and call. Here a request becomes a run, and a row becomes a typed answer again.

A background run, and with a database also a foreground one, goes through the queue: it is a row before anything is paid,
and whichever worker claims it finds its whole definition there.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar, Unpack, overload
from uuid import uuid4
from weakref import WeakSet

import anyio

from pgrun._agent_options import AgentOptions, check_names, definition_of
from pgrun._agent_talks import Talks
from pgrun._ids import check_run_id
from pgrun._sync import run_sync
from pgrun.db.postgres import PostgresDb
from pgrun.db.verbs import NewRun
from pgrun.errors import PgrunError, SessionBusy, UsageError
from pgrun.run._storable import to_jsonable
from pgrun.run.base import RunOutput, output_from_row, result_of
from pgrun.run.cancel import is_unwanted
from pgrun.run.inline import execute_here
from pgrun.run.options import AgentRunOptions, Choices, check_multitask, check_name, choose_for_agent
from pgrun.run.output import OutputSchema, known_type

T = TypeVar("T")
S = TypeVar("S")
Row = Mapping[str, Any]

_NEVER = 86_400.0 * 365

_registry: dict[str, "Agent[Any]"] = {}


class Agent(Talks, Generic[T]):
    """A named definition of how to answer: a model, what it is told, and the type of its answers.

    Args:
        output_schema: Type of the answers: Pydantic model, dataclass, TypedDict, list, union or scalar; or a JSON schema as a
            dict. None: plain text.
        **options: See `AgentOptions`.

    Raises:
        UsageError: An argument cannot be; for a type that the provider's strict mode cannot carry it names the field.
    """

    @overload
    def __init__(self: "Agent[str]", *, output_schema: None = None, **options: Unpack[AgentOptions]) -> None: ...
    @overload
    def __init__(self: "Agent[S]", *, output_schema: type[S], **options: Unpack[AgentOptions]) -> None: ...
    @overload
    def __init__(self: "Agent[Any]", *, output_schema: Any, **options: Unpack[AgentOptions]) -> None: ...
    def __init__(self, *, output_schema: Any = None, **options: Any) -> None:
        name, queue = options.get("name", "Agent"), options.get("queue", "default")
        check_names(name, options)
        check_name("Agent.name", name)
        check_name("Agent.queue", queue)
        db = options.get("db")
        if options.get("model") is None:
            raise UsageError(f'Agent "{name}" needs a model, for example model=OpenAIResponses(id="gpt-5-mini")')
        if db is not None and not isinstance(db, PostgresDb):
            raise UsageError(f'Agent "{name}": db must be a PostgresDb, not {type(db).__name__}')
        if options.get("add_history_to_context") and db is None:
            raise UsageError(f'Agent "{name}": add_history_to_context needs a db, where the history is')
        self.name: str = name
        self.queue: str = queue
        self.db: PostgresDb | None = db
        self.multitask = check_multitask("multitask", options.get("multitask") or "enqueue")
        self.definition = definition_of(options)
        own = choose_for_agent(
            {each: options.get(each) for each in ("user_id", "metadata")}, **self._defaults(), metadata={}
        )
        self._metadata, self._context = own.metadata, own.context or {}
        self.output_schema = _schema_of(output_schema)
        # As JSON, once: it goes into every run, and a worker of this process recognises the agent by it. None for an agent with
        # code, whose runs are recognised by its name alone.
        self.stored_definition: dict[str, Any] | None = (
            to_jsonable(self.definition.to_json(), name=f'Agent "{name}"') if self.definition.travels else None
        )
        self._declared_in: WeakSet[PostgresDb] = WeakSet()
        _registry[name] = self

    def __repr__(self) -> str:
        return f"<Agent {self.name}, {self.definition.model!r}>"

    @overload
    async def arun(
        self, input: Any, *, output_schema: None = None, background: bool = False, **options: Unpack[AgentRunOptions]
    ) -> RunOutput[T]: ...
    @overload
    async def arun(
        self, input: Any, *, output_schema: type[S], background: bool = False, **options: Unpack[AgentRunOptions]
    ) -> RunOutput[S]: ...
    @overload
    async def arun(
        self, input: Any, *, output_schema: Any, background: bool = False, **options: Unpack[AgentRunOptions]
    ) -> RunOutput[Any]: ...
    async def arun(
        self, input: Any, *, output_schema: Any = None, background: bool = False, **options: Unpack[AgentRunOptions]
    ) -> RunOutput[Any]:
        """Asks the agent.

        Args:
            input: A text, a list of ``{"role", "content"}`` messages, or any data with a JSON form, which is shown as JSON.
            output_schema: Type of this answer, instead of the agent's.
            background: Return as soon as the run is stored, with status pending; ``await run.aresult()`` gives the answer.
            **options: See `AgentRunOptions`.

        Returns:
            In the foreground the completed run, else the pending one. Cancelling a foreground call cancels the run.

        Raises:
            UsageError: The input cannot be stored, or an option cannot be; nothing was submitted.
            SessionBusy: Its session has an open run, and `multitask` is `reject`; nothing was submitted.
            RunFailed: The foreground run ended in `error`.
            RunCancelled: Someone cancelled the foreground run.
            DatabaseError: The run could not be stored.
        """
        choices = choose_for_agent(options, **self._defaults(), metadata=self._metadata)
        if self._context:
            choices = replace(choices, context={**self._context, **(choices.context or {})})
        schema = _schema_of(output_schema) or self.output_schema
        data = to_jsonable(input)
        if self.db is None:
            if background:
                raise UsageError(
                    f'Agent "{self.name}" has no db: background runs need one, for example PostgresDb("embedded:")'
                )
            if choices.multitask:
                raise UsageError(f'Agent "{self.name}" has no db, so no session is ever busy: multitask= needs one')
            return await execute_here(self.name, self.definition, schema, data, choices)
        run = self._new_run(self.db, data, schema, choices)
        if background:
            return await self._submit(self.db, run, schema)
        return await self._complete(self.db, run, schema)

    @overload
    def run(
        self, input: Any, *, output_schema: None = None, background: bool = False, **options: Unpack[AgentRunOptions]
    ) -> RunOutput[T]: ...
    @overload
    def run(
        self, input: Any, *, output_schema: type[S], background: bool = False, **options: Unpack[AgentRunOptions]
    ) -> RunOutput[S]: ...
    @overload
    def run(
        self, input: Any, *, output_schema: Any, background: bool = False, **options: Unpack[AgentRunOptions]
    ) -> RunOutput[Any]: ...
    def run(
        self, input: Any, *, output_schema: Any = None, background: bool = False, **options: Unpack[AgentRunOptions]
    ) -> RunOutput[Any]:
        """The same as `arun`, for code without an event loop."""
        return run_sync(partial(self.arun, input, output_schema=output_schema, background=background, **options))

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
        return _read(db, row, _schema_of(output_schema) or self._schema_for(row))

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

    async def acancel_run(self, run_id: str) -> bool:
        """Cancels a run, whoever executes it: one that waits at once, a running one by closing its request to the model.

        Returns:
            Whether it is cancelled or being cancelled; False if it had already ended otherwise.

        Raises:
            RunNotFound: There is no such run.
        """
        db = self._needs_db()
        return await (await db.connected()).verbs.cancel(check_run_id(run_id)) in ("cancelled", "cancelling")

    def cancel_run(self, run_id: str) -> bool:
        """The same as `acancel_run`, for code without an event loop."""
        return run_sync(self.acancel_run, run_id)

    async def adeclare(self, db: PostgresDb | None = None) -> None:
        """Records the definition in the database, so that SQL can submit runs by name; the first run does it by itself."""
        db = db or self._needs_db()
        connected = await db.connected()
        schema = self.output_schema.json_schema if self.output_schema else None
        await connected.verbs.declare_agent(
            self.name, self.queue, self.stored_definition, schema, self.definition.retry.max_attempts
        )
        self._declared_in.add(db)

    def _defaults(self) -> dict[str, Any]:
        """What runs are told unless they say so themselves."""
        return {
            "queue": self.queue,
            "max_attempts": self.definition.retry.max_attempts,
            "session_id": str(uuid4()),
            "multitask": self.multitask,
        }

    def _new_run(self, db: PostgresDb, data: Any, schema: OutputSchema[Any] | None, choices: Choices) -> NewRun:
        return NewRun(
            **vars(choices),
            kind="agent",
            name=self.name,
            input=data,
            session_table=None if db.session_table == "sessions" else db.session_table,
            definition=self.stored_definition,
            output_schema=schema.json_schema if schema else None,
            content_type=schema.name if schema else "str",
        )

    async def _submit(self, db: PostgresDb, run: NewRun, schema: OutputSchema[Any] | None) -> RunOutput[Any]:
        _check_name_is_its_own(self)
        if db not in self._declared_in:
            await self.adeclare()
        began = time.monotonic()
        if is_unwanted(run.run_id):  # stored all the same, so that whoever asks for it finds out what became of it
            created_at = await db.submit(run._replace(delay=_NEVER))
            await self.acancel_run(run.run_id)
        else:
            created_at = await db.submit(run)
        if created_at is None:  # submitted before under this run_id: the answer to an idempotent caller
            row = await (await db.connected()).verbs.get(run.run_id)
            if row is not None:
                known: RunOutput[Any] = _read(db, row, schema)
                return known
        return _submitted(run, created_at, _Handle(db, schema, since=began))

    async def _complete(self, db: PostgresDb, run: NewRun, schema: OutputSchema[Any] | None) -> RunOutput[Any]:
        try:
            ended = await (await self._submit(db, run, schema)).awaited()
        except (UsageError, SessionBusy):  # nothing was submitted
            raise
        except BaseException:
            # Nobody waits for a foreground run any more: what it would still cost is saved. Also after a submit that was
            # cancelled, since nobody can say whether it came before the commit.
            with anyio.move_on_after(5, shield=True), suppress(PgrunError):
                await self.acancel_run(run.run_id)
            raise
        result_of(ended)
        return ended

    def _needs_db(self) -> PostgresDb:
        if self.db is None:
            raise UsageError(f'Agent "{self.name}" has no db, so its runs are not stored')
        return self.db

    def _schema_for(self, row: Row) -> OutputSchema[Any] | None:
        """The agent's own type, if the run was made with exactly this schema; else its content stays as it is stored."""
        own = self.output_schema
        return own if own is not None and row["output_schema"] == own.json_schema else None


def registered_agents() -> dict[str, Agent[Any]]:
    """The agents this process has declared, by name; of two with one name the later."""
    return dict(_registry)


async def cancel_anywhere(run_id: str) -> bool | None:
    """Cancels a run in whichever database of this process's agents it is; whether it did, None if it is in none."""
    for db in {agent.db for agent in _registry.values() if agent.db is not None}:
        with suppress(PgrunError):
            return await (await db.connected()).verbs.cancel(run_id) in ("cancelled", "cancelling")
    return None


def _check_name_is_its_own(agent: Agent[Any]) -> None:
    """Refuses a run that a worker of this process, which knows agents with tools by name, would execute with other tools."""
    code = agent.definition.code
    if code and code != _registry[agent.name].definition.code:
        raise UsageError(
            f'another agent with the name "{agent.name}" was declared after this one, with other tools, and workers tell them '
            "apart by name: give each a name of its own, and declare it once"
        )


class _Handle:
    """How a `RunOutput` waits for its run, which had not ended at `since`."""

    def __init__(self, db: PostgresDb, schema: OutputSchema[Any] | None, *, since: float = 0.0) -> None:
        self._db = db
        self._schema = schema
        self._since = since

    async def wait(self, run_id: str, timeout: float | None) -> RunOutput[Any]:
        row = await self._db.wait_for(run_id, timeout, since=self._since)
        return _read(self._db, row, self._schema)


def _submitted(run: NewRun, created_at: datetime | None, handle: "_Handle") -> RunOutput[Any]:
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


def _read(db: PostgresDb, row: Row, schema: OutputSchema[Any] | None) -> RunOutput[Any]:
    content = row["output"]
    if row["status"] == "completed" and schema is not None:
        content = schema.load(content)
    return output_from_row(row, content, _Handle(db, schema))


def _schema_of(output_schema: Any) -> OutputSchema[Any] | None:
    if output_schema is None:
        return None
    if isinstance(output_schema, dict):
        return known_type(output_schema) or OutputSchema.from_json(output_schema)
    return OutputSchema.of(output_schema)
