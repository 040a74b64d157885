"""One attempt at one run, from the claimed row to a decision: decode → execute → decide. Recording it is the worker's.

An attempt holds no connection while the model thinks: all it needs of the database is what
was done and said before, the journal of the run and the history of its session.
"""

import asyncio  # noqa: TID251  only it knows of a cancellation that no scope asked for
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import anyio
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from pgrun._agents_here import known_definition
from pgrun.db.records import Claimed, Ending
from pgrun.db.verbs import Verbs
from pgrun.errors import AnswerQueued, AttemptError, QuotaExceeded, UsageError
from pgrun.retry import RetryPolicy
from pgrun.run._storable import storable_text
from pgrun.run.base import ToolExecution
from pgrun.run.children import Children, ChildrenOpen
from pgrun.run.context import RunContext
from pgrun.run.conversation import Past
from pgrun.run.definition import AgentDefinition
from pgrun.run.execution import Execution
from pgrun.run.journal import Journal
from pgrun.run.metrics import RunMetrics
from pgrun.run.output import OutputSchema, known_type
from pgrun.run.requirement import RunPaused
from pgrun.run.stream import Stream
from pgrun.run.task_host import Asleep
from pgrun.settings import Settings
from pgrun.task import registered_tasks
from pgrun.verdict import Discard, Snooze, Verdict
from pgrun.worker.children import StoredChildren, Submit
from pgrun.worker.decision import Decision, Leave, Park, Pause, Release, Retry
from pgrun.worker.follow_up import delay_after, find, traceback_of
from pgrun.worker.history import read_history
from pgrun.worker.journal import open_journal
from pgrun.worker.limits import Limits
from pgrun.worker.progress import ProgressNotes
from pgrun.worker.state import begin_state, told_to
from pgrun.worker.task_work import TaskWork, TaskWorkInContext

_log = logging.getLogger("pgrun.worker")

_LOOK_AGAIN = 10.0  # seconds between looks at an answer that its provider has queued for long


class Attempt:
    """One attempt at a claimed run.

    An agent tells `stream` what it does meanwhile; `on_wait` is called whenever it begins to wait, see `waits`.
    """

    def __init__(
        self,
        claimed: Claimed,
        settings: Settings,
        verbs: Verbs | None = None,
        *,
        submit: Submit | None = None,
        stream: Stream | None = None,
        on_wait: Callable[[], None] = lambda: None,
        notes: ProgressNotes | None = None,
    ) -> None:
        self._claimed = claimed
        self._notes = notes
        self._stream = stream
        self._settings = settings
        self._verbs = verbs
        self._submit = submit
        self._on_wait = on_wait
        self._started = time.monotonic()
        self._work: _AgentWork | TaskWork | None = None
        self._limits: Limits | None = None

    @property
    def metrics(self) -> dict[str, Any] | None:
        """What the run has used until now, before and in this attempt; None for a task, which uses nothing that costs."""
        if self._claimed.kind == "task":
            return None
        used = self._work.metrics if isinstance(self._work, _AgentWork) else RunMetrics()
        total = _read_metrics(self._claimed) + used + RunMetrics(duration=time.monotonic() - self._started)
        return total.model_dump(exclude_defaults=True)

    @property
    def tools(self) -> list[dict[str, Any]] | None:
        """What this attempt has called until now; None if nothing."""
        if not isinstance(self._work, _AgentWork):
            return None
        return [each.model_dump(exclude_none=True) for each in self._work.executed] or None

    @property
    def waits(self) -> bool:
        """Whether it does nothing but wait for an answer that the provider goes on with, and that any attempt can take up."""
        return isinstance(self._work, _AgentWork) and self._work.waits

    @property
    def has_answer(self) -> bool:
        """Whether the call of the model that its row tells of has been answered, and is counted in `metrics`."""
        return isinstance(self._work, _AgentWork) and self._work.has_answer

    async def decide(self) -> Decision:
        """Carries it out and decides what follows; raises nothing but the cancellation of the caller."""
        claimed = self._claimed
        try:
            work = self._work = self._task_work() if claimed.kind == "task" else await self._agent_work()
            limits = self._limits = Limits.of(claimed, work.timeout)
            content, content_type = await (work.execute() if limits is None else limits.hold(work.execute_or_leave))
        except _UnknownHere as error:
            return Release(self._settings.unknown_delay, _error(claimed, error), self.metrics, keeps_call=True)
        except Asleep as asleep:
            return Leave(asleep.seconds)
        except AnswerQueued:
            return Leave(_LOOK_AGAIN, self.metrics, parks=True)
        except ChildrenOpen:
            return Park(self.metrics)
        except QuotaExceeded as error:
            return Release(self._settings.quota_delay, _error(claimed, error), self.metrics, self._leaves_call)
        except RunPaused as pause:
            asked = [each.to_json() for each in pause.requirements]
            return Pause(asked, _holds_session(self._work), self.metrics, self.tools)
        except asyncio.CancelledError as error:
            if _is_stopped():
                raise
            return self._after(error)  # what it awaited was cancelled, and not the run
        except (Exception, SystemExit) as error:
            return self._after(error)
        except BaseExceptionGroup as group:  # of a task group in a task
            if (sleeper := find(group, Asleep)) is not None:
                return Leave(sleeper.seconds)
            if _is_stopped() or find(group, KeyboardInterrupt):
                raise
            return self._after(group)
        ending = Ending(claimed, "completed", self.metrics, content, content_type, tools=self.tools)
        if isinstance(work, _AgentWork):
            ending.heard, ending.answer = work.heard, work.last_answer
        return ending

    def _task_work(self) -> "TaskWork":
        claimed, task = self._claimed, registered_tasks().get(self._claimed.name)
        if task is None:
            raise _unknown(claimed)
        if self._verbs is None or self._notes is None or not task.needs_context:
            return TaskWork(task, claimed)
        return TaskWorkInContext(task, claimed, self._verbs, self._notes)

    async def _agent_work(self) -> "_AgentWork":
        claimed, verbs, definition = self._claimed, self._verbs, _definition(self._claimed)
        if verbs is None:
            return _AgentWork(claimed, definition, Journal(), stream=self._stream)
        journal = await open_journal(verbs, claimed, lambda: self.metrics, self._on_wait)
        past = await read_history(verbs, claimed, definition)
        await begin_state(verbs, claimed, definition, journal)
        children = StoredChildren(verbs, self._submit or verbs.submit, claimed)
        return _AgentWork(claimed, definition, journal, past, children=children, stream=self._stream)

    def _after(self, error: BaseException) -> Decision:
        claimed = self._claimed
        said = find(error, Verdict)
        error = said or error
        failure, policy = _error(claimed, error), self._work.policy if self._work else RetryPolicy()
        if isinstance(said, Snooze):
            return Release(said.seconds, failure, self.metrics, self._leaves_call)
        if isinstance(said, Discard) and said.cancel:
            return Ending(claimed, "cancelled", self.metrics, error=failure, tools=self.tools)
        delay = delay_after(error, policy, claimed.attempt, claimed.max_attempts)
        if delay is not None and (
            self._limits is None or self._limits.allows(time.monotonic() - self._started + delay)
        ):
            return Retry(delay, failure, self.metrics, self._leaves_call)
        keeps_call = self._leaves_call
        return Ending(claimed, "error", self.metrics, error=failure, tools=self.tools, keeps_call=keeps_call)

    @property
    def _leaves_call(self) -> bool:
        """Whether the provider still works on an answer, or has it."""
        return isinstance(self._work, _AgentWork) and self._work.leaves_call


def _is_stopped() -> bool:
    """Whether this attempt itself is cancelled: by a scope, or by the end of the event loop, which asks no scope."""
    task = asyncio.current_task()
    return anyio.current_effective_deadline() == -math.inf or (task is not None and task.cancelling() > 0)


def unforeseen(claimed: Claimed, error: Exception) -> Ending:
    """The end of a run of which even the decision could not be written: it must not be paid again and again."""
    return Ending(claimed, "error", error=_error(claimed, error))


class _UnknownHere(AttemptError):
    """This process does not know what the run is to execute; another one may."""


def _unknown(claimed: Claimed) -> _UnknownHere:
    if claimed.kind == "agent":
        return _UnknownHere(
            f'no worker here knows the agent "{claimed.name}" with its tools: start one that imports it '
            "(pgrun worker --import your.module)"
        )
    return _UnknownHere(
        f'no worker here knows the agent or task "{claimed.name}": start one that imports it '
        "(pgrun worker --import your.module), or use the agent once from Python, which stores its definition"
    )


class _AgentWork:
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
        return self._execution.metrics

    @property
    def executed(self) -> Sequence[ToolExecution]:
        return self._execution.turns.calls.executions

    @property
    def waits(self) -> bool:
        return self._execution.journal.waits

    @property
    def leaves_call(self) -> bool:
        return self._execution.journal.leaves_call

    @property
    def has_answer(self) -> bool:
        return self._execution.journal.has_answer

    @property
    def heard(self) -> int:
        return self._execution.journal.heard

    def last_answer(self) -> dict[str, Any] | None:
        step = self._execution.last_step()
        return vars(step) if step else None

    async def execute_or_leave(self) -> tuple[Any, str]:
        return await self.execute()

    async def execute(self) -> tuple[Any, str]:
        return await self._execution.take(), self._output.name if self._output else "str"


def _holds_session(work: "_AgentWork | TaskWork | None") -> bool:
    return not isinstance(work, _AgentWork) or work.holds_session


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


def _definition(claimed: Claimed) -> AgentDefinition:
    """What to execute; a run without a definition is of an agent with tools, and must not be executed by one without."""
    try:
        definition = known_definition(claimed.name, claimed.definition)
    except UsageError as error:  # written by a newer pgrun, or by hand
        raise _UnknownHere(f'"{claimed.name}" cannot be executed by this worker: {error}') from error
    if definition is None:
        raise _unknown(claimed)
    return definition


@lru_cache(maxsize=256)
def _schema(json_schema: str) -> OutputSchema[Any]:
    data = from_json(json_schema)
    return known_type(data) or OutputSchema.from_json(data)


def _read_metrics(claimed: Claimed) -> RunMetrics:
    try:
        return RunMetrics.model_validate_json(claimed.metrics)
    except ValidationError:
        _log.warning("%r: metrics in its row cannot be read and are counted anew: %s", claimed, claimed.metrics)
        return RunMetrics()


def _error(claimed: Claimed, error: BaseException) -> dict[str, Any]:
    """The failure as it is stored, for people and for `RunFailed`."""
    is_foreseen = isinstance(error, AttemptError | UsageError | Verdict)
    if not is_foreseen:
        _log.exception("%r raised", claimed, exc_info=error)
    kind = "UnknownName" if isinstance(error, _UnknownHere) else type(error).__name__
    details = error.details if isinstance(error, AttemptError) else {}
    if not is_foreseen or (isinstance(error, Verdict) and error.__cause__ is not None):
        details = {**details, "traceback": traceback_of(error)}
    message = storable_text(_text(error)) or type(error).__name__
    return {"type": kind, "message": message, "attempt": claimed.attempt, **_storable(details)}


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as fault:  # the class is a user's
        return f"(its text cannot be had: {type(fault).__name__})"


def _storable(details: dict[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = from_json(to_json(details, fallback=repr, inf_nan_mode="null"))
    return {name: storable_text(value) if isinstance(value, str) else value for name, value in data.items()}
