"""What a caller holds in hand: `RunOutput`, the request and answer of a run and how it stands, or `Run`, the way to a result."""

from collections.abc import AsyncGenerator, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from pgrun import errors
from pgrun._sync import iterate_sync, run_sync
from pgrun.errors import AttemptError, RunCancelled, RunExpired, RunFailed, UsageError
from pgrun.run.abandon import cancelling_if_abandoned
from pgrun.run.event import RunEvent, check_after
from pgrun.run.metrics import RunMetrics as RunMetrics
from pgrun.run.progress import Progress
from pgrun.run.requirement import RunRequirement

T = TypeVar("T")


class RunStatus(StrEnum):
    """Where a run stands; the same words as in SQL.

    ============  ==================================  =========================================
    status        comes in by                         goes on by
    ============  ==================================  =========================================
    pending       submit, retry, release, rescue,     claim, cancel
                  resume
    running       claim                               finish, retry, release, rescue, pause, cancel
    paused        pause                               resume, cancel
    completed     finish with a valid output          (final)
    error         finish, rescue without attempts,    retry by a person
                  expire at its deadline
    cancelled     cancel, expire before its start     retry by a person
    ============  ==================================  =========================================
    """

    pending = "pending"
    running = "running"
    paused = "paused"
    completed = "completed"
    error = "error"
    cancelled = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self in (RunStatus.completed, RunStatus.error, RunStatus.cancelled)


class ToolExecution(BaseModel):
    """A call of a tool that the model asked for, and what came of it.

    One that was under way when the run was cancelled, or that waits for a person, has neither result nor error.
    """

    call_id: str
    """The provider's id of the call."""
    name: str
    arguments: dict[str, Any] | str
    """As the model gave them; a text if that is no JSON object."""
    result: str | None = None
    """What the model was shown: the text a tool returned, anything else as JSON."""
    error: str | None = None
    """What the model was shown instead, for example ``"ValueError: no such city"``."""
    duration: float = 0.0
    """Seconds."""


class RunFailure(BaseModel):
    """The last failure of a run: the name of its error, its message, and what else was recorded (`raw`, `code` …)."""

    model_config = ConfigDict(extra="allow")

    type: str
    message: str

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


class RunHandle(Protocol):
    """How a `RunOutput` reaches its run; agents and tasks hand one in."""

    async def wait(self, run_id: str, timeout: float | None) -> "RunOutput[Any]":
        """The run once it has ended."""

    def events(self, run_id: str, after: int) -> AsyncGenerator[RunEvent, None]:
        """The events of the run that come after one, until its end."""

    async def look(self, run_id: str) -> "RunOutput[Any]":
        """The run as it stands."""

    async def cancel(self, run_id: str) -> bool:
        """Cancels the run; whether it is or will be."""

    def read(self, row: Mapping[str, Any]) -> "RunOutput[Any]":
        """The run from its row."""


class RunOutput(BaseModel, Generic[T]):
    """A run as it stood when it was read: request, status, answer and what it used.

    It is a snapshot; read again with ``agent.aget_run_output``, or wait for the end with `aresult`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    run_id: str
    session_id: str | None = None
    agent_name: str | None = None
    status: RunStatus = RunStatus.pending
    content: T | None = None
    """The answer: an instance of the output type where that is known, else the JSON data or text as stored."""
    content_type: str | None = None
    """Name of the output type, `str` for plain text."""
    input: Any = None
    error: RunFailure | None = None
    attempt: int = 0
    metrics: RunMetrics = Field(default_factory=RunMetrics)
    tools: list[ToolExecution] = Field(default_factory=list)
    """What it called, in the order in which the model asked for it."""
    requirements: list[RunRequirement] = Field(default_factory=list)
    """What it has waited for a person for, and waits for while it is paused; see `active_requirements`."""
    messages: list[dict[str, Any]] = Field(default_factory=list)
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    parent_run_id: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    duplicate: bool = False
    """Whether what was submitted is this run, which was there before, because of its key or run_id."""
    progress: Progress | None = None
    """How far its task says that it has come."""

    _handle: RunHandle | None = PrivateAttr(default=None)

    @property
    def is_paused(self) -> bool:
        """Whether it waits for a person."""
        return self.status is RunStatus.paused

    @property
    def active_requirements(self) -> list[RunRequirement]:
        """What it waits for: decide on each, then ``agent.acontinue_run(run)``. Empty unless it is paused."""
        return [each for each in self.requirements if not each.is_stored] if self.is_paused else []

    async def aresult(self, timeout: float | None = None, *, cancel_on_abandon: bool = False) -> T:
        """Waits for the end of the run without polling and returns its typed content; also while it waits for a person.

        Args:
            timeout: Seconds to wait at most; None waits as long as it takes.
            cancel_on_abandon: Whether the run is cancelled if this wait ends before it: after `timeout`, or because the caller is
                cancelled. By default it goes on.

        Raises:
            RunFailed: It ended in `error`; the cause is the error of its last attempt.
            RunCancelled: It was cancelled; `RunExpired`, because nobody had started it in time.
            WaitTimeout: It has not ended yet.
            RunNotFound: It does not exist any more.
        """
        if not cancel_on_abandon:
            return result_of(await self.awaited(timeout))
        async with cancelling_if_abandoned(lambda: self._reach().cancel(self.run_id)):
            return result_of(await self.awaited(timeout))

    def result(self, timeout: float | None = None, *, cancel_on_abandon: bool = False) -> T:
        """The same as `aresult`, for code without an event loop."""
        return run_sync(partial(self.aresult, timeout, cancel_on_abandon=cancel_on_abandon))

    async def awaited(self, timeout: float | None = None) -> "RunOutput[T]":
        """The run once it has ended, however it ended; else as `aresult`."""
        return self if self.status.is_final else await self._reach().wait(self.run_id, timeout)

    def aevents(self, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        """What happens to the run: pieces of the answer, calls of tools, attempts, and its end, at which the iteration ends.

        Any number of readers, in any process, before, during and after the run, see the same events in the same order. It ends
        when the run has paused for a person, too; read on after the `seq` of the last event.

        Args:
            after: The `seq` of the last event you have seen, to go on behind it; 0 for all of them.

        Raises:
            UsageError: `after` cannot be.
            RunNotFound: It does not exist any more.
            DatabaseUnavailable: The database was lost and did not come back in time; you can read on later.
        """
        return self._reach().events(self.run_id, check_after(after))

    def events(self, after: int = 0) -> Iterator[RunEvent]:
        """The same as `aevents`, for code without an event loop."""
        return iterate_sync(partial(self.aevents, after))

    def _reach(self) -> RunHandle:
        if self._handle is None:
            raise UsageError(
                f"this RunOutput of run {self.run_id} was not returned by an agent; use agent.aget_run_output(run_id)"
            )
        return self._handle


class Run(Generic[T]):
    """A submitted call of a task: its id, and the way to its result.

    Attributes:
        run_id: Its id.
        duplicate: Whether what was submitted is this run, which was there before, because of its key or run_id.
    """

    __slots__ = ("_handle", "duplicate", "run_id")

    def __init__(self, run_id: str, handle: RunHandle, *, duplicate: bool = False) -> None:
        self.run_id = run_id
        self.duplicate = duplicate
        self._handle = handle

    def __repr__(self) -> str:
        return f"<Run {self.run_id}>"

    async def aresult(self, timeout: float | None = None, *, cancel_on_abandon: bool = False) -> T:
        """Waits for the end of the run without polling and returns its typed result; else as `RunOutput.aresult`."""
        if not cancel_on_abandon:
            ended: RunOutput[T] = await self._handle.wait(self.run_id, timeout)
            return result_of(ended)
        async with cancelling_if_abandoned(self.acancel):
            return await self.aresult(timeout)

    def result(self, timeout: float | None = None, *, cancel_on_abandon: bool = False) -> T:
        """The same as `aresult`, for code without an event loop."""
        return run_sync(partial(self.aresult, timeout, cancel_on_abandon=cancel_on_abandon))

    async def acancel(self) -> bool:
        """Cancels the run, whoever executes it: one that waits at once, a running one as soon as its worker has stopped it.

        Returns:
            Whether it is cancelled or being cancelled; False if it had already ended otherwise.

        Raises:
            RunNotFound: It does not exist any more.
        """
        return await self._handle.cancel(self.run_id)

    def cancel(self) -> bool:
        """The same as `acancel`, for code without an event loop."""
        return run_sync(self.acancel)

    async def aprogress(self) -> Progress | None:
        """How far the run says that it has come; None if it has said nothing. Its events tell it as it comes.

        Raises:
            RunNotFound: It does not exist any more.
        """
        return (await self._handle.look(self.run_id)).progress

    def progress(self) -> Progress | None:
        """The same as `aprogress`, for code without an event loop."""
        return run_sync(self.aprogress)

    def aevents(self, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        """What becomes of the run: attempts, and its end; else as `RunOutput.aevents`."""
        return self._handle.events(self.run_id, check_after(after))

    def events(self, after: int = 0) -> Iterator[RunEvent]:
        """The same as `aevents`, for code without an event loop."""
        return iterate_sync(partial(self.aevents, after))


def output_from_row(row: Mapping[str, Any], content: Any, handle: RunHandle | None) -> RunOutput[Any]:
    """A `RunOutput` from a row of `jobs`; `content` is its output as the caller wants to see it."""
    output: RunOutput[Any] = RunOutput(
        run_id=str(row["run_id"]),
        session_id=row["session_id"],
        agent_name=row["name"],
        status=RunStatus(row["status"]),
        content=content,
        content_type=row["content_type"],
        input=row["input"],
        error=RunFailure.model_validate(row["error"]) if row["error"] else None,
        attempt=row["attempt"],
        metrics=RunMetrics.model_validate(row["metrics"]),
        tools=row["tools"] or [],
        progress=row["progress"],
        requirements=row["requirements"] or [],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        parent_run_id=str(row["parent_run_id"]) if row["parent_run_id"] else None,
        metadata=row["metadata"],
    )
    output._handle = handle
    return output


def result_of(run: RunOutput[T]) -> T:
    """The content of a completed run; raises `RunFailed` or `RunCancelled` for one that ended otherwise."""
    if run.status is RunStatus.completed:
        return cast(T, run.content)
    if run.status is RunStatus.cancelled and run.error is not None and run.error.type == RunExpired.__name__:
        raise RunExpired(f"run {run.run_id} was cancelled: {run.error.message}", run_id=run.run_id, run=run)
    if run.status is RunStatus.cancelled:
        raise RunCancelled(f"run {run.run_id} was cancelled", run_id=run.run_id, run=run)
    failure = run.error or RunFailure(type="AttemptError", message="no error was recorded")
    details = failure.model_extra or {}
    raise RunFailed(
        f"run {run.run_id} failed in attempt {run.attempt}: {failure}",
        run_id=run.run_id,
        run=run,
        error_type=failure.type,
        details={"message": failure.message, **details},
    ) from _cause(failure, details)


def _cause(failure: RunFailure, details: dict[str, Any]) -> AttemptError:
    kind = getattr(errors, failure.type, AttemptError)
    if not (isinstance(kind, type) and issubclass(kind, AttemptError)):
        kind = AttemptError
    return kind(failure.message, **details)
