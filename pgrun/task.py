"""`Task`: a Python function whose calls are runs. Here a call becomes a row, and a row becomes its typed result again."""

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial, update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar, Unpack

from pgrun._context import in_own_context
from pgrun._ids import new_run_id, new_run_ids
from pgrun._reaching import Reaches
from pgrun._sync import run_sync
from pgrun._task_execution import Execution
from pgrun.db.postgres import PostgresDb
from pgrun.db.records import NewRun
from pgrun.errors import UsageError
from pgrun.retry import RetryPolicy
from pgrun.run._arguments import Arguments, Result
from pgrun.run._task_parameters import context_parameter
from pgrun.run._terms_said import CHECKS, check_keys
from pgrun.run.base import Run, RunOutput, output_from_row
from pgrun.run.event import RunEvent, Shape
from pgrun.run.options import RunOptions, check_name, choose
from pgrun.run.task_context import Middleware, TaskContext
from pgrun.run.task_host import TaskHost
from pgrun.run.terms import Terms
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
        max_attempts: The same in short: how many there are.
        timeout: Seconds that an attempt may take. A plain function cannot be stopped: its thread goes on, and what comes of it is
            not wanted any more; see `SyncTaskContext.cancelled`, and `processes`.
        processes: Call it in a process of its own, which is killed when it is to stop: for a plain function at the top of a
            module. At most one process per processor computes; to wait for one is part of an attempt.
        middleware: Around each execution, inside of what the database has for all of its tasks; see `PostgresDb.middleware`.

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
        max_attempts: int | None = None,
        timeout: float | None = None,
        processes: bool = False,
        middleware: Iterable[Middleware] = (),
    ) -> None:
        if not callable(function) or isinstance(function, type):
            raise UsageError(f"@db.task goes before a function, not {function!r}")
        self.name = check_name("task name", name or getattr(function, "__name__", ""))
        self.queue = check_name("task queue", queue)
        self.retry = _retry(retry, max_attempts)
        self.timeout = None if timeout is None else CHECKS["timeout"]("task timeout", timeout)
        self.function: Callable[..., Any] = function
        self._context = context_parameter(self.name, function)
        self.arguments = Arguments(self.name, function, without=self._context)
        self.result = Result(self.name, function)
        self._execution = Execution(
            self.name,
            function,
            self.arguments,
            self.result,
            context=self._context,
            processes=processes,
        )
        self._middleware = tuple(middleware)
        self._db = db
        self._options: RunOptions = {}
        self._like = self._choose({})
        update_wrapper(self, function, updated=())  # attributes of the function are not those of the task
        _register(self)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Calls the function itself, without a run: nothing is stored, and a context keeps nothing."""
        if self._context is None:
            return self.function(*args, **kwargs)
        given = self._execution.given(TaskContext.of_none(self.name, TaskHost()))
        return self.function(**self.arguments.named(args, kwargs), **given)

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
        if like.terms is not None:
            keys = [like.terms.key] if like.terms.key else []
            return (await self._place(like, [run_id], b"[%b]" % data, keys))[0]
        is_new = True
        if like.run_id or like.session_id or like.concurrency_key or like.weight:
            is_new = await self._db.submit(like._replace(run_id=run_id, input=data)) is not None
        else:
            await self._db.submit_call(like, run_id, data)
        return Run(run_id, _Handle(self._db, self, since=began if is_new else 0.0), duplicate=not is_new)

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """The same as `asubmit`, for code without an event loop."""
        return run_sync(partial(self.asubmit, *args, **kwargs))

    async def asubmit_many(
        self, calls: Iterable[Mapping[str, Any]], *, keys: Iterable[str] | None = None
    ) -> list[Run[R]]:
        """Stores many calls in one statement: all of them, or none.

        Args:
            calls: The keyword arguments of each.
            keys: The key of each, see `RunOptions.key`. Those whose key is held, also by one of the others, are the same run.

        Raises:
            UsageError: One of them does not fit the function; the message has its number, nothing was submitted.
            DatabaseError: They could not be stored.
        """
        if self._like.run_id:
            raise UsageError("run_id= is for one run; many runs get ids of their own")
        if self._like.terms and self._like.terms.key:
            raise UsageError("key= is for one run; give asubmit_many keys=, one for each call")
        if self._like.multitask:
            raise UsageError("multitask= is for one run; many runs of a session queue up")
        calls = [*calls]
        data = self.arguments.dump_many(calls)
        checked = None if keys is None else check_keys(keys, len(calls))
        run_ids = new_run_ids(len(calls))  # they are due at one moment, and the ids decide who comes first
        if calls and (checked is not None or self._like.terms is not None):
            like = self._like._replace(terms=self._like.terms or Terms())
            return await self._place(like, run_ids, data, checked or [])
        handle = _Handle(self._db, self, since=time.monotonic())
        if calls:
            await self._db.submit_calls(self._like, run_ids, data)
        return [Run(run_id, handle) for run_id in run_ids]

    def submit_many(self, calls: Iterable[Mapping[str, Any]], *, keys: Iterable[str] | None = None) -> list[Run[R]]:
        """The same as `asubmit_many`, for code without an event loop."""
        return run_sync(partial(self.asubmit_many, calls, keys=keys))

    async def _place(self, like: NewRun, run_ids: list[str], inputs: bytes, keys: list[str]) -> list[Run[R]]:
        handle, known = _Handle(self._db, self, since=time.monotonic()), _Handle(self._db, self, since=0.0)
        placed = await self._db.place(like, run_ids, inputs, keys)
        # One that was there before is a duplicate, unless it is our own: inserted by a statement whose answer was lost.
        return [
            Run(each.run_id, handle)
            if each.is_new or (each.run_id == run_id and not like.chosen_id)
            else Run(each.run_id, known, duplicate=True)
            for run_id, each in zip(run_ids, placed, strict=True)
        ]

    @property
    def needs_context(self) -> bool:
        """Whether `execute` needs the context of the run: the function asks for it, or middleware."""
        return self._context is not None or bool(self._middleware or self._db.middlewares)

    def template(self, input: Mapping[str, Any] | None, options: Mapping[str, Any]) -> NewRun:
        """What the runs of a schedule are like, with these keyword arguments; without a run_id unless one was chosen.

        Raises:
            UsageError: An argument or an option cannot be.
        """
        if not isinstance(input, Mapping | None):
            raise UsageError(f"{self.name}: {input!r:.100} are no keyword arguments; give a dict of them")
        like = self._choose({**self._options, **options})  # type: ignore[typeddict-item]
        return like._replace(input=self.arguments.dump((), input or {}))

    async def execute(self, data: str, context: TaskContext | None = None, *, may_leave: bool = False) -> bytes:
        """Calls the function with stored arguments and returns its result, both as JSON; workers do that.

        Args:
            data: The arguments.
            context: Of the run; needed if `needs_context`.
            may_leave: A cancellation does not wait for the thread of a plain function.

        Raises:
            UsageError: The arguments do not fit the function.
            OutputInvalid: The result does not fit its annotation.
        """
        if context is None and self.needs_context:
            context = TaskContext.of_none(self.name, TaskHost())
        call = self._execution.begin(data, context, self._db.middlewares + self._middleware, may_leave=may_leave)
        # Runs share tasks; what one sets in its context is no concern of the next.
        return self.result.dump(await in_own_context(call))

    def _choose(self, options: RunOptions) -> NewRun:
        """What the runs have in common; the run_id is empty unless it was chosen."""
        choices = choose(options, queue=self.queue, max_attempts=self.retry.max_attempts, session_id=None)
        if choices.multitask and choices.session_id is None:
            raise UsageError(f"multitask={choices.multitask!r} needs session_id=, the session that may be busy")
        like = NewRun(**vars(choices), kind="task", name=self.name, input=b"{}")
        return like if like.chosen_id else like._replace(run_id="")


def _retry(policy: RetryPolicy | None, max_attempts: int | None) -> RetryPolicy:
    if max_attempts is None:
        return policy or RetryPolicy()
    if policy is not None:
        raise UsageError("retry= says all of it; leave max_attempts= out")
    return replace(RetryPolicy(), max_attempts=max_attempts)


class _Handle(Reaches):
    """How a `Run` reaches its result."""

    def __init__(self, db: PostgresDb, task: Task[Any, Any], *, since: float) -> None:
        self._db = db
        self._task = task
        self._since = since

    def read(self, row: Mapping[str, Any]) -> RunOutput[Any]:
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
