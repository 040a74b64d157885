"""`TaskContext`: what a task may know about its run, and do with it: steps that are taken once, sleeps, progress.

A task asks for it with a parameter. It hands everything on to a host: the worker's writes to the journal of the run, the one of a
task that is called without a run keeps nothing.
"""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec, Protocol, TypeVar, overload

import anyio
import anyio.from_thread

from pgrun.run.progress import progress_of

P = ParamSpec("P")
T = TypeVar("T")


class Host(Protocol):
    """Who carries out what a context is asked for; methods that end in `_here` are for threads."""

    async def step(self, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """See `TaskContext.step`."""

    def step_here(self, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """See `SyncTaskContext.step`."""

    async def sleep(self, seconds: float) -> None:
        """See `TaskContext.sleep`."""

    def sleep_here(self, seconds: float) -> None:
        """See `SyncTaskContext.sleep`."""

    def note(self, progress: dict[str, Any]) -> None:
        """Takes what is to be stored as progress; returns at once, in any thread."""


@dataclass(frozen=True, kw_only=True)
class _Context:
    """The run that executes a task; its attributes are those of `TaskContext`."""

    run_id: str
    name: str
    attempt: int = 1
    max_attempts: int = 1
    session_id: str | None = None
    parent_run_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    host: Host = field(repr=False, compare=False)

    def progress(self, reached: float | tuple[float, float] | None = None, message: str | None = None) -> None:
        """Says how far the run has come, for those who wait for it and for operators; call it as often as you like.

        What was said last is stored, twice a second at most, and at the end.

        Args:
            reached: A share from 0 to 1, or a pair of what is done and what there is in all.
            message: For people.
        """
        self.host.note(progress_of(reached, message))


class TaskContext(_Context):
    """The run that executes an async task; a parameter of the task that is annotated with it, its first, is filled in by pgrun.

    Attributes:
        run_id: Its id; empty if the task was called without a run.
        name: Of the task.
        attempt: Counted from 1.
        max_attempts: How many it has.
        session_id: The session it belongs to, if any.
        parent_run_id: The run that started it, if any.
        metadata: As it was submitted with.
    """

    @classmethod
    def of_none(cls, name: str, host: Host) -> "TaskContext":
        """The context of a task that is called without a run."""
        return cls(run_id="", name=name, host=host)

    def for_thread(self) -> "SyncTaskContext":
        """The same for a plain function."""
        return SyncTaskContext(**vars(self))

    @overload
    async def step(
        self, name: str, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def step(self, name: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def step(self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Calls a function once in the life of the run: a later attempt gets what it returned, without calling it.

        What it returned is recorded, as JSON checked by its annotation, before this returns. If the worker dies between the
        call and the record, the call is repeated. What raises is not recorded.

        Args:
            name: Of the step. The second step of that name is another one: the n-th has to be the same in every attempt.
            function: Async, or plain: a plain function runs in a thread.
            *args: What it is called with.
            **kwargs: The same.

        Raises:
            OutputInvalid: It returned what its annotation does not allow, or what is no JSON.
            LeaseLost: The run belongs to another worker.
        """
        return await self.host.step(name, function, args, kwargs)

    async def sleep(self, seconds: float) -> None:
        """Sleeps until that much later, also if the worker dies or is restarted meanwhile; once in the life of the run.

        A long sleep (more than a few seconds) ends this attempt: the run gives its slot to others, and begins from the beginning
        when the time has come, passes its recorded steps and this sleep, and goes on. That uses up no attempt.
        """
        await self.host.sleep(seconds)


class SyncTaskContext(_Context):
    """The same as `TaskContext`, with the same attributes, for a task that is a plain function, which runs in a thread."""

    def step(self, name: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The same as `TaskContext.step`; the function is called in this thread."""
        result: T = self.host.step_here(name, function, args, kwargs)
        return result

    def sleep(self, seconds: float) -> None:
        """The same as `TaskContext.sleep`."""
        self.host.sleep_here(seconds)

    @property
    def cancelled(self) -> bool:
        """Whether the run is to stop: it was cancelled, has taken too long, or belongs to another worker.

        Nothing can stop a thread from outside; what a function returns all the same counts, unless its time was up.
        """
        try:
            self.raise_if_cancelled()
        except BaseException:
            return True
        return False

    def raise_if_cancelled(self) -> None:
        """Ends the function if the run is to stop, by the exception with which async functions are cancelled."""
        try:
            anyio.from_thread.check_cancelled()
        except anyio.NoEventLoopError:  # not in a worker's thread: it was called directly
            return


Proceed = Callable[[], Coroutine[Any, Any, Any]]
"""Goes on with the next middleware, and in the end with the task; returns what it returned."""

Middleware = Callable[[TaskContext, Proceed], Coroutine[Any, Any, Any]]
"""Around each execution of a task: ``async def log(ctx, call_next): … result = await call_next() … return result``."""
