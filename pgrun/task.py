"""`Task`: a Python function whose calls are runs. Here a call becomes a row, and a row becomes its typed result again."""

import inspect
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from functools import partial, update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar, Unpack

import anyio
import anyio.to_thread

from pgrun._context import in_own_context
from pgrun._ids import new_run_id, new_run_ids
from pgrun._sync import run_sync
from pgrun.db.postgres import PostgresDb
from pgrun.db.records import NewRun
from pgrun.errors import UsageError
from pgrun.retry import RetryPolicy
from pgrun.run._arguments import Arguments, Result
from pgrun.run.base import Run, RunOutput, output_from_row
from pgrun.run.event import RunEvent, Shape
from pgrun.run.options import RunOptions, check_name, choose
from pgrun.streaming import read_events

P = ParamSpec("P")
R = TypeVar("R")

_registry: dict[str, "Task[Any, Any]"] = {}


class Task(Generic[P, R]):
    """A function that runs can execute; made by ``@db.task``. Calling it calls the function, here and now.

    Args:
        db: Where its runs are stored.
        function: Async, or plain: a plain function runs in a thread.
        name: By which workers and SQL know it. Default: the function's.
        queue: The queue of its runs.
        retry: When failed attempts are repeated.

    Raises:
        UsageError: An argument cannot be; for a parameter without a JSON form it names the parameter.
    """

    def __init__(
        self,
        db: PostgresDb,
        function: Callable[P, Any],
        *,
        name: str | None = None,
        queue: str = "default",
        retry: RetryPolicy | None = None,
    ) -> None:
        if not callable(function) or isinstance(function, type):
            raise UsageError(f"@db.task goes before a function, not {function!r}")
        self.name = check_name("task name", name or getattr(function, "__name__", ""))
        self.queue = check_name("task queue", queue)
        self.retry = retry or RetryPolicy()
        self.function: Callable[..., Any] = function
        self.arguments = Arguments(self.name, function)
        self.result = Result(self.name, function)
        self._db = db
        self._options: RunOptions = {}
        self._like = self._choose({})
        self._is_async = inspect.iscoroutinefunction(function)
        update_wrapper(self, function, updated=())  # attributes of the function are not those of the task
        _register(self)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Calls the function itself; nothing is stored."""
        return self.function(*args, **kwargs)

    def options(self, **options: Unpack[RunOptions]) -> "Task[P, R]":
        """The same task with other options for the runs submitted through it, see `RunOptions`.

        Raises:
            UsageError: An option does not exist or cannot be.
        """
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._options = {**self._options, **options}
        other._like = self._choose(other._options)
        return other

    async def asubmit(self, *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """Stores a call as a run and returns at once.

        Raises:
            UsageError: The arguments do not fit the function, or cannot be stored; nothing was submitted.
            DatabaseError: The run could not be stored.
        """
        like, data = self._like, self.arguments.dump(args, kwargs)
        run_id, began = like.run_id or new_run_id(), time.monotonic()
        if like.run_id or like.session_id:
            is_new = await self._db.submit(like._replace(run_id=run_id, input=data)) is not None
        else:
            is_new = True
            await self._db.submit_call(like, run_id, data)
        return Run(run_id, _Handle(self._db, self, since=began if is_new else 0.0))

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """The same as `asubmit`, for code without an event loop."""
        return run_sync(partial(self.asubmit, *args, **kwargs))

    async def asubmit_many(self, calls: Iterable[Mapping[str, Any]]) -> list[Run[R]]:
        """Stores many calls in one statement: all of them, or none.

        Args:
            calls: The keyword arguments of each.

        Raises:
            UsageError: One of them does not fit the function; the message has its number, nothing was submitted.
            DatabaseError: They could not be stored.
        """
        if self._like.run_id:
            raise UsageError("run_id= is for one run; many runs get ids of their own")
        if self._like.multitask:
            raise UsageError("multitask= is for one run; many runs of a session queue up")
        calls = [*calls]
        data = self.arguments.dump_many(calls)
        run_ids = new_run_ids(len(calls))  # they are due at one moment, and the ids decide who comes first
        handle = _Handle(self._db, self, since=time.monotonic())
        if calls:
            await self._db.submit_calls(self._like, run_ids, data)
        return [Run(run_id, handle) for run_id in run_ids]

    def submit_many(self, calls: Iterable[Mapping[str, Any]]) -> list[Run[R]]:
        """The same as `asubmit_many`, for code without an event loop."""
        return run_sync(self.asubmit_many, calls)

    def template(self, input: Mapping[str, Any] | None, options: Mapping[str, Any]) -> NewRun:
        """What the runs of a schedule are like, with these keyword arguments; without a run_id unless one was chosen.

        Raises:
            UsageError: An argument or an option cannot be.
        """
        if not isinstance(input, Mapping | None):
            raise UsageError(f"{self.name}: {input!r:.100} are no keyword arguments; give a dict of them")
        like = self._choose({**self._options, **options})  # type: ignore[typeddict-item]
        return like._replace(input=self.arguments.dump((), input or {}))

    async def execute(self, data: str) -> bytes:
        """Calls the function with stored arguments and returns its result, both as JSON; workers do that.

        Raises:
            UsageError: The arguments do not fit the function.
            OutputInvalid: The result does not fit its annotation.
        """
        call = self._call if self._is_async else self._call_in_thread
        # Runs share tasks; what one sets in its context is no concern of the next.
        return self.result.dump(await in_own_context(call(self.arguments.load(data))))

    async def _call(self, kwargs: dict[str, Any]) -> Any:
        return await self.function(**kwargs)

    async def _call_in_thread(self, kwargs: dict[str, Any]) -> Any:
        # No limit of its own, anyio's is 40 for all: the slots of the worker are one.
        value = await anyio.to_thread.run_sync(partial(self.function, **kwargs), limiter=anyio.CapacityLimiter(1))
        return await value if isinstance(value, Awaitable) else value

    def _choose(self, options: RunOptions) -> NewRun:
        """What the runs have in common; the run_id is empty unless it was chosen."""
        choices = choose(options, queue=self.queue, max_attempts=self.retry.max_attempts, session_id=None)
        if choices.multitask and choices.session_id is None:
            raise UsageError(f"multitask={choices.multitask!r} needs session_id=, the session that may be busy")
        like = NewRun(**vars(choices), kind="task", name=self.name, input=b"{}")
        return like if options.get("run_id") else like._replace(run_id="")


class _Handle:
    """How a `Run` waits for its result; it had not ended at `since`."""

    def __init__(self, db: PostgresDb, task: Task[Any, Any], *, since: float) -> None:
        self._db = db
        self._task = task
        self._since = since

    async def wait(self, run_id: str, timeout: float | None) -> RunOutput[Any]:
        row = await self._db.wait_for(run_id, timeout, since=self._since)
        completed = row["status"] == "completed"
        return output_from_row(row, self._task.result.load(row["output"]) if completed else row["output"], self)

    def events(self, run_id: str, after: int) -> AsyncGenerator[RunEvent, None]:
        return read_events(self._db, run_id, after, Shape(whole=self._task.result.load))


def registered_tasks() -> dict[str, Task[Any, Any]]:
    """The tasks this process has declared, by name."""
    return _registry


def _register(task: Task[Any, Any]) -> None:
    other = _registry.get(task.name)
    if other is not None and _home(other) != _home(task):
        raise UsageError(
            f'task "{task.name}" is {".".join(_home(other))} already; give {".".join(_home(task))} another name='
        )
    _registry[task.name] = task


def _home(task: Task[Any, Any]) -> tuple[str, str]:
    return getattr(task.function, "__module__", ""), getattr(task.function, "__qualname__", task.name)
