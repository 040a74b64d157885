"""What an agent is once it is declared: its definition, the type of its answers, and what its runs are told by default."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4
from weakref import WeakSet

from pgrun._agent_options import check_names, definition_of
from pgrun._agent_runs import Row, schema_of
from pgrun._sync import run_sync
from pgrun.db.postgres import PostgresDb
from pgrun.errors import UsageError
from pgrun.run._storable import to_jsonable
from pgrun.run.children import AgentTool
from pgrun.run.options import AgentRunOptions, Choices, check_multitask, check_name, choose_for_agent
from pgrun.run.output import OutputSchema


class Declared:
    """What the methods of `Agent` build on; arguments and errors are those of `Agent`."""

    def __init__(self, output_schema: Any, options: Mapping[str, Any]) -> None:
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

    def __repr__(self) -> str:
        return f"<Agent {self.name}, {self.definition.model!r}>"

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
            if isinstance(agent, Declared) and db not in agent._declared_in:
                await agent.adeclare(db)

    def declare(self, db: PostgresDb | None = None) -> None:
        """The same as `adeclare`, for code without an event loop."""
        run_sync(self.adeclare, db)

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

    def _needs_db(self) -> PostgresDb:
        if self.db is None:
            raise UsageError(f'Agent "{self.name}" has no db, so its runs are not stored')
        return self.db

    def _schema_for(self, row: Row) -> OutputSchema[Any] | None:
        """The agent's own type, if the run was made with exactly this schema; else its content stays as it is stored."""
        own = self.output_schema
        return own if own is not None and row["output_schema"] == own.json_schema else None
