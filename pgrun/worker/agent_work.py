"""What an attempt at a run of an agent carries out: turns with a model, by the definition that its row or this process has."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic_core import from_json

from pgrun._agents_here import known_definition
from pgrun.db.records import Claimed
from pgrun.errors import UsageError
from pgrun.run.base import ToolExecution
from pgrun.run.children import Children
from pgrun.run.context import RunContext
from pgrun.run.conversation import Past
from pgrun.run.definition import AgentDefinition
from pgrun.run.execution import Execution
from pgrun.run.journal import Journal
from pgrun.run.metrics import RunMetrics
from pgrun.run.output import OutputSchema, known_type
from pgrun.run.stream import Stream
from pgrun.worker.failure import UnknownHere, unknown
from pgrun.worker.state import told_to


class AgentWork:
    """Turns with a model."""

    timeout = None

    def __init__(
        self,
        claimed: Claimed,
        definition: AgentDefinition,
        journal: Journal,
        past: Sequence[Past] = (),
        *,
        children: Children | None = None,
        stream: Stream | None = None,
    ) -> None:
        self.policy = definition.retry
        self.holds_session = definition.holds_session
        self._output = _schema(claimed.output_schema) if claimed.output_schema is not None else None
        data, told = from_json(claimed.input), told_to(claimed)
        self._execution = Execution(
            definition,
            self._output,
            data,
            _context(claimed, told),
            journal,
            past,
            told.get("media", ()),
            children,
            stream,
        )

    @property
    def metrics(self) -> RunMetrics:
        """What this attempt has used."""
        return self._execution.metrics

    @property
    def executed(self) -> Sequence[ToolExecution]:
        """What it has called."""
        return self._execution.turns.calls.executions

    @property
    def waits(self) -> bool:
        """See `Attempt.waits`."""
        return self._execution.journal.waits

    @property
    def leaves_call(self) -> bool:
        """Whether the provider still works on an answer, or has it."""
        return self._execution.journal.leaves_call

    @property
    def has_answer(self) -> bool:
        """See `Attempt.has_answer`."""
        return self._execution.journal.has_answer

    @property
    def heard(self) -> int:
        """How much of what was said to the run it has heard."""
        return self._execution.journal.heard

    def last_answer(self) -> dict[str, Any] | None:
        """Its last answer as a step, if that is not recorded."""
        step = self._execution.last_step()
        return vars(step) if step else None

    async def execute(self) -> tuple[Any, str]:
        """Takes the turns; the answer, and the name of its type."""
        return await self._execution.take(), self._output.name if self._output else "str"

    async def execute_or_leave(self) -> tuple[Any, str]:
        """The same: a cancellation leaves nothing behind."""
        return await self.execute()


def find_definition(claimed: Claimed) -> AgentDefinition:
    """What to execute; a run without a definition is of an agent with tools, and must not be executed by one without."""
    try:
        definition = known_definition(claimed.name, claimed.definition)
    except UsageError as error:  # written by a newer pgrun, or by hand
        raise UnknownHere(f'"{claimed.name}" cannot be executed by this worker: {error}') from error
    if definition is None:
        raise unknown(claimed)
    return definition


def _context(claimed: Claimed, told: Mapping[str, Any]) -> RunContext:
    return RunContext(
        user_id=told.get("user_id"),
        dependencies=told.get("dependencies", {}),
        run_id=claimed.run_id,
        session_id=claimed.session_id,
        agent_name=claimed.name,
        attempt=claimed.attempt,
        metadata=from_json(claimed.metadata or "{}"),
    )


@lru_cache(maxsize=256)
def _schema(json_schema: str) -> OutputSchema[Any]:
    data = from_json(json_schema)
    return known_type(data) or OutputSchema.from_json(data)
