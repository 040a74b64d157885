"""`Agent`: what users declare and call. Here a request becomes a run, and a row becomes a typed answer again.

A background run, and with a database also a foreground one, goes through the queue: it is a row before anything is paid,
and whichever worker claims it finds its whole definition there.
"""

import time
from collections.abc import AsyncGenerator, Coroutine, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Generic, Literal, TypeVar, Unpack, overload
from uuid import uuid4
from weakref import WeakSet

import anyio
from pydantic_core import from_json

from pgrun._agent_decides import Decides
from pgrun._agent_options import AgentOptions, check_names, definition_of
from pgrun._agent_runs import Handle, checked, place, read, schema_of, settled, submitted
from pgrun._agent_talks import Talks
from pgrun._ids import check_run_id
from pgrun._stopping import stop_left_calls
from pgrun._sync import iterate_sync, run_sync
from pgrun.db.postgres import PostgresDb
from pgrun.db.records import NewRun
from pgrun.db.waiting import not_found
from pgrun.errors import PgrunError, SessionBusy, UsageError
from pgrun.run._storable import to_jsonable
from pgrun.run.base import RunOutput, result_of
from pgrun.run.cancel import is_unwanted
from pgrun.run.children import AgentTool
from pgrun.run.definition import AgentDefinition
from pgrun.run.event import RunEvent, check_after
from pgrun.run.inline import check_nobody_is_waited_for, execute_here
from pgrun.run.inline_stream import stream_here
from pgrun.run.options import AgentRunOptions, Choices, check_multitask, check_name, choose_for_agent
from pgrun.run.output import OutputSchema
from pgrun.run.partial import shape_of
from pgrun.streaming import read_events

T = TypeVar("T")
S = TypeVar("S")
Row = Mapping[str, Any]

_NEVER = 86_400.0 * 365

_registry: dict[str, "Agent[Any]"] = {}


class Agent(Decides, Talks, Generic[T]):
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
        self.output_schema = schema_of(output_schema)
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
    def arun(
        self,
        input: Any,
        *,
        stream: Literal[True],
        background: Literal[False] = False,
        output_schema: Any = None,
        **options: Unpack[AgentRunOptions],
    ) -> AsyncGenerator[RunEvent, None]: ...
    @overload
    def arun(
        self,
        input: Any,
        *,
        output_schema: None = None,
        background: bool = False,
        stream: Literal[False] = False,
        **options: Unpack[AgentRunOptions],
    ) -> Coroutine[Any, Any, RunOutput[T]]: ...
    @overload
    def arun(
        self,
        input: Any,
        *,
        output_schema: type[S],
        background: bool = False,
        stream: Literal[False] = False,
        **options: Unpack[AgentRunOptions],
    ) -> Coroutine[Any, Any, RunOutput[S]]: ...
    @overload
    def arun(
        self,
        input: Any,
        *,
        output_schema: Any,
        background: bool = False,
        stream: Literal[False] = False,
        **options: Unpack[AgentRunOptions],
    ) -> Coroutine[Any, Any, RunOutput[Any]]: ...
    @overload
    def arun(
        self,
        input: Any,
        *,
        output_schema: None = None,
        background: Literal[True],
        stream: bool,
        **options: Unpack[AgentRunOptions],
    ) -> Coroutine[Any, Any, RunOutput[T]]: ...
    @overload
    def arun(
        self,
        input: Any,
        *,
        output_schema: type[S],
        background: Literal[True],
        stream: bool,
        **options: Unpack[AgentRunOptions],
    ) -> Coroutine[Any, Any, RunOutput[S]]: ...
    def arun(
        self,
        input: Any,
        *,
        output_schema: Any = None,
        background: bool = False,
        stream: bool = False,
        **options: Unpack[AgentRunOptions],
    ) -> Any:
        """Asks the agent.

        Args:
            input: A text, a list of ``{"role", "content"}`` messages, or any data with a JSON form, which is shown as JSON.
            output_schema: Type of this answer, instead of the agent's.
            background: Return as soon as the run is stored, with status pending; ``await run.aresult()`` gives the answer.
            stream: In the foreground not to be awaited, but iterated: ``async for event in agent.arun("…", stream=True)``. In
                the background the model tells its answer piece by piece from the start, for whoever reads `RunOutput.aevents`.
            **options: See `AgentRunOptions`.

        Returns:
            In the foreground the completed run, or the paused one if it waits for a person (see `acontinue_run`), or with
            `stream` its events; else the pending one. Cancelling a foreground call, or leaving the iteration, cancels the run.

        Raises:
            UsageError: The input cannot be stored, or an option cannot be; nothing was submitted.
            SessionBusy: Its session has an open run, and `multitask` is `reject`; nothing was submitted.
            RunFailed: The foreground run ended in `error`; with `stream` after its last event.
            RunCancelled: Someone cancelled the foreground run; with `stream` after its last event.
            DatabaseError: The run could not be stored.
        """
        if stream and not background:
            return self._tell(input, output_schema, options)
        return self._ask(input, output_schema, options, background=background, streams=stream)

    @overload
    def run(
        self,
        input: Any,
        *,
        stream: Literal[True],
        background: Literal[False] = False,
        output_schema: Any = None,
        **options: Unpack[AgentRunOptions],
    ) -> Iterator[RunEvent]: ...
    @overload
    def run(
        self,
        input: Any,
        *,
        output_schema: None = None,
        background: bool = False,
        stream: Literal[False] = False,
        **options: Unpack[AgentRunOptions],
    ) -> RunOutput[T]: ...
    @overload
    def run(
        self,
        input: Any,
        *,
        output_schema: type[S],
        background: bool = False,
        stream: Literal[False] = False,
        **options: Unpack[AgentRunOptions],
    ) -> RunOutput[S]: ...
    @overload
    def run(
        self,
        input: Any,
        *,
        output_schema: Any,
        background: bool = False,
        stream: Literal[False] = False,
        **options: Unpack[AgentRunOptions],
    ) -> RunOutput[Any]: ...
    @overload
    def run(
        self,
        input: Any,
        *,
        output_schema: None = None,
        background: Literal[True],
        stream: bool,
        **options: Unpack[AgentRunOptions],
    ) -> RunOutput[T]: ...
    @overload
    def run(
        self,
        input: Any,
        *,
        output_schema: type[S],
        background: Literal[True],
        stream: bool,
        **options: Unpack[AgentRunOptions],
    ) -> RunOutput[S]: ...
    def run(
        self,
        input: Any,
        *,
        output_schema: Any = None,
        background: bool = False,
        stream: bool = False,
        **options: Unpack[AgentRunOptions],
    ) -> Any:
        """The same as `arun`, for code without an event loop."""
        ask: Any = partial(
            self.arun, input, output_schema=output_schema, background=background, stream=stream, **options
        )
        return iterate_sync(ask) if stream and not background else run_sync(ask)

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

    async def acancel_run(self, run_id: str) -> bool:
        """Cancels a run, whoever executes it: one that waits at once, a running one by stopping its call to the model.

        A provider that goes on with an answer by itself is told to stop: by the worker that executes the run, or from here if
        that worker is dead.

        Returns:
            Whether it is cancelled or being cancelled; False if it had already ended otherwise.

        Raises:
            RunNotFound: There is no such run.
        """
        return await _cancel(self._needs_db(), check_run_id(run_id))

    def cancel_run(self, run_id: str) -> bool:
        """The same as `acancel_run`, for code without an event loop."""
        return run_sync(self.acancel_run, run_id)

    def as_tool(self, *, name: str | None = None, description: str | None = None) -> AgentTool:
        """This agent as a tool of another one: each call is a run of its own, with the caller's as its parent.

        Args:
            name: By which the model calls it. Default: the agent's, with ``_`` for what names of tools may not have.
            description: What the model is told. Default: the agent's description.
        """
        return AgentTool(self, name=name, description=description or self.definition.description)

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

    async def adeclare(self, db: PostgresDb | None = None) -> None:
        """Records the definition in the database, so that SQL can submit runs by name; the first run does it by itself.

        Those of the agents that it asks are recorded, too.
        """
        db = db or self._needs_db()
        connected = await db.connected()
        schema = self.output_schema.json_schema if self.output_schema else None
        await connected.verbs.declare_agent(
            self.name, self.queue, self.stored_definition, schema, self.definition.retry.max_attempts
        )
        self._declared_in.add(db)
        asked = (each.agent for each in self.definition.tools.tools if isinstance(each, AgentTool))
        for agent in asked:
            if isinstance(agent, Agent) and db not in agent._declared_in:
                await agent.adeclare(db)

    def declare(self, db: PostgresDb | None = None) -> None:
        """The same as `adeclare`, for code without an event loop."""
        run_sync(self.adeclare, db)

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

    def _choose(self, options: AgentRunOptions) -> Choices:
        choices = choose_for_agent(options, **self._defaults(), metadata=self._metadata)
        return replace(choices, context={**self._context, **(choices.context or {})} or None)

    def _defaults(self) -> dict[str, Any]:
        """What runs are told unless they say so themselves."""
        return {
            "queue": self.queue,
            "max_attempts": self.definition.retry.max_attempts,
            "session_id": str(uuid4()),
            "multitask": self.multitask,
        }

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
        _check_name_is_its_own(self)
        if db not in self._declared_in:
            await self.adeclare()
        if run.terms is not None and not is_unwanted(run.run_id):
            return await place(db, run, schema)
        began = time.monotonic()
        if is_unwanted(run.run_id):  # stored all the same, so that whoever asks for it finds out what became of it
            created_at = await db.submit(run._replace(delay=_NEVER))
            await self.acancel_run(run.run_id)
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
            await self._cancel_unheard(run.run_id)
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
            await self._cancel_unheard(run.run_id)
            raise
        row = await (await db.connected()).verbs.get(run.run_id)
        if row is not None and row["finished_at"] is not None:
            result_of(read(db, row, schema))

    async def _cancel_unheard(self, run_id: str) -> None:
        """Nobody waits for a foreground run any more: what it would still cost is saved.

        Also after a submit that was cancelled, since nobody can say whether it came before the commit.
        """
        with anyio.move_on_after(5, shield=True), suppress(PgrunError):
            await self.acancel_run(run_id)

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


def known_definition(name: str, stored: str | None) -> AgentDefinition | None:
    """What an agent's run executes: the live agent's, with whatever only this process has, such as its key; else what travelled.

    Args:
        name: Of the agent.
        stored: The definition that travelled with the run, as JSON text; None for an agent with tools, known by its name.

    Raises:
        UsageError: What travelled cannot be read.
    """
    agent = _registry.get(name)
    if agent is not None and (None if stored is None else _parsed(stored)) == agent.stored_definition:
        return agent.definition
    return None if stored is None else _stored_definition(stored)


async def cancel_anywhere(run_id: str) -> bool | None:
    """Cancels a run in whichever database of this process's agents it is; whether it did, None if it is in none."""
    for db in {agent.db for agent in _registry.values() if agent.db is not None}:
        with suppress(PgrunError):
            return await _cancel(db, run_id)
    return None


async def _cancel(db: PostgresDb, run_id: str) -> bool:
    """Whether the run is cancelled or being cancelled."""
    verbs = (await db.connected()).verbs
    state = await verbs.cancel(run_id)
    if state == "cancelled":  # nobody executes it
        left = await verbs.take_left_calls([*_registry], run_id=run_id)
        await stop_left_calls(verbs, left, known_definition)
    return state in ("cancelled", "cancelling")


def _refuse_conn(choices: Choices) -> None:
    if choices.terms is not None and choices.terms.conn is not None:
        raise UsageError("conn= is for background=True: a run is not executed before your transaction is committed")


@lru_cache(maxsize=256)
def _parsed(definition: str) -> Any:
    return from_json(definition)


@lru_cache(maxsize=256)
def _stored_definition(definition: str) -> AgentDefinition:
    return AgentDefinition.from_json(from_json(definition))


def _check_name_is_its_own(agent: Agent[Any]) -> None:
    """Refuses a run that a worker of this process, which knows agents with tools by name, would execute with other tools."""
    code = agent.definition.code
    if code and code != _registry[agent.name].definition.code:
        raise UsageError(
            f'another agent with the name "{agent.name}" was declared after this one, with other tools, and workers tell them '
            "apart by name: give each a name of its own, and declare it once"
        )
