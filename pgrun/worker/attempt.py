"""One attempt at one run, from the claimed row to a decision: decode → execute → decide. Recording it is the worker's.

An attempt holds no connection while the model thinks: all it needs of the database is what
was done and said before, the journal of the run and the history of its session.
"""

import asyncio  # noqa: TID251  only it knows of a cancellation that no scope asked for
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import anyio
from pydantic import ValidationError

from pgrun.db.records import Claimed, Ending
from pgrun.db.verbs import Verbs
from pgrun.errors import AnswerQueued, QuotaExceeded
from pgrun.retry import RetryPolicy
from pgrun.run.children import ChildrenOpen
from pgrun.run.journal import Journal
from pgrun.run.metrics import RunMetrics
from pgrun.run.requirement import RunPaused
from pgrun.run.stream import Stream
from pgrun.run.task_host import Asleep
from pgrun.settings import Settings
from pgrun.task import registered_tasks
from pgrun.verdict import Discard, Snooze, Verdict
from pgrun.worker.agent_work import AgentWork, find_definition
from pgrun.worker.children import StoredChildren, Submit
from pgrun.worker.decision import Decision, Leave, Park, Pause, Release, Retry
from pgrun.worker.failure import UnknownHere, failure_of, unknown
from pgrun.worker.follow_up import delay_after, find
from pgrun.worker.history import read_history
from pgrun.worker.journal import open_journal
from pgrun.worker.limits import Limits
from pgrun.worker.progress import ProgressNotes
from pgrun.worker.state import begin_state
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
        self._work: AgentWork | TaskWork | None = None
        self._limits: Limits | None = None

    @property
    def metrics(self) -> dict[str, Any] | None:
        """What the run has used until now, before and in this attempt; None for a task, which uses nothing that costs."""
        if self._claimed.kind == "task":
            return None
        used = self._work.metrics if isinstance(self._work, AgentWork) else RunMetrics()
        total = _read_metrics(self._claimed) + used + RunMetrics(duration=time.monotonic() - self._started)
        return total.model_dump(exclude_defaults=True)

    @property
    def tools(self) -> list[dict[str, Any]] | None:
        """What this attempt has called until now; None if nothing."""
        if not isinstance(self._work, AgentWork):
            return None
        return [each.model_dump(exclude_none=True) for each in self._work.executed] or None

    @property
    def waits(self) -> bool:
        """Whether it does nothing but wait for an answer that the provider goes on with, and that any attempt can take up."""
        return isinstance(self._work, AgentWork) and self._work.waits

    @property
    def has_answer(self) -> bool:
        """Whether the call of the model that its row tells of has been answered, and is counted in `metrics`."""
        return isinstance(self._work, AgentWork) and self._work.has_answer

    async def decide(self) -> Decision:
        """Carries it out and decides what follows; raises nothing but the cancellation of the caller."""
        claimed = self._claimed
        try:
            work = self._work = self._task_work() if claimed.kind == "task" else await self._agent_work()
            limits = self._limits = Limits.of(claimed, work.timeout)
            content, content_type = await (work.execute() if limits is None else limits.hold(work.execute_or_leave))
        except UnknownHere as error:
            return Release(self._settings.unknown_delay, failure_of(claimed, error), self.metrics, keeps_call=True)
        except Asleep as asleep:
            return Leave(asleep.seconds)
        except AnswerQueued:
            return Leave(_LOOK_AGAIN, self.metrics, parks=True)
        except ChildrenOpen:
            return Park(self.metrics)
        except QuotaExceeded as error:
            return Release(self._settings.quota_delay, failure_of(claimed, error), self.metrics, self._leaves_call)
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
        if isinstance(work, AgentWork):
            ending.heard, ending.answer = work.heard, work.last_answer
        return ending

    def _task_work(self) -> TaskWork:
        claimed, task = self._claimed, registered_tasks().get(self._claimed.name)
        if task is None:
            raise unknown(claimed)
        if self._verbs is None or self._notes is None or not task.needs_context:
            return TaskWork(task, claimed)
        return TaskWorkInContext(task, claimed, self._verbs, self._notes)

    async def _agent_work(self) -> AgentWork:
        claimed, verbs, definition = self._claimed, self._verbs, find_definition(self._claimed)
        if verbs is None:
            return AgentWork(claimed, definition, Journal(), stream=self._stream)
        journal = await open_journal(verbs, claimed, lambda: self.metrics, self._on_wait)
        past = await read_history(verbs, claimed, definition)
        await begin_state(verbs, claimed, definition, journal)
        children = StoredChildren(verbs, self._submit or verbs.submit, claimed)
        return AgentWork(claimed, definition, journal, past, children=children, stream=self._stream)

    def _after(self, error: BaseException) -> Decision:
        claimed = self._claimed
        said = find(error, Verdict)
        error = said or error
        failure, policy = failure_of(claimed, error), self._work.policy if self._work else RetryPolicy()
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
        return isinstance(self._work, AgentWork) and self._work.leaves_call


def _is_stopped() -> bool:
    """Whether this attempt itself is cancelled: by a scope, or by the end of the event loop, which asks no scope."""
    task = asyncio.current_task()
    return anyio.current_effective_deadline() == -math.inf or (task is not None and task.cancelling() > 0)


def _holds_session(work: AgentWork | TaskWork | None) -> bool:
    return not isinstance(work, AgentWork) or work.holds_session


def _read_metrics(claimed: Claimed) -> RunMetrics:
    try:
        return RunMetrics.model_validate_json(claimed.metrics)
    except ValidationError:
        _log.warning("%r: metrics in its row cannot be read and are counted anew: %s", claimed, claimed.metrics)
        return RunMetrics()
