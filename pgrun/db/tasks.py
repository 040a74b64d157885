"""How a function becomes a task: ``@db.task``, and what stands around the execution of all tasks of a database."""

from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from pgrun import _hosting
from pgrun.retry import RetryPolicy
from pgrun.run.task_context import Middleware, SyncTaskContext, TaskContext

if TYPE_CHECKING:
    from pgrun.task import Task

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=Middleware)


class MakesTasks:
    """These methods of `PostgresDb`."""

    middlewares: tuple[Middleware, ...] = ()

    @overload
    def task(self, function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]], /) -> "Task[P, R]": ...
    @overload
    def task(self, function: Callable[Concatenate[SyncTaskContext, P], R], /) -> "Task[P, R]": ...
    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> "Task[P, R]": ...
    @overload
    def task(self, function: Callable[P, R], /) -> "Task[P, R]": ...
    @overload
    def task(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        queue: str = "default",
        retry: RetryPolicy | None = None,
        max_attempts: int | None = None,
        timeout: float | None = None,
        processes: bool = False,
        middleware: Iterable[Middleware] = (),
    ) -> "_TaskMaker": ...
    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        queue: str = "default",
        retry: RetryPolicy | None = None,
        max_attempts: int | None = None,
        timeout: float | None = None,
        processes: bool = False,
        middleware: Iterable[Middleware] = (),
    ) -> Any:
        """Makes a function a task, whose calls can be submitted as runs: ``@db.task`` or ``@db.task(queue="mail")``.

        Args:
            function: Async, or plain: a plain function runs in a thread. Its annotations say what is stored; a first parameter
                that is a `TaskContext`, or for a plain function a `SyncTaskContext`, is filled in.
            name: By which workers and SQL know it. Default: the function's.
            queue: The queue of its runs.
            retry: When failed attempts are repeated.
            max_attempts: How many attempts its runs have, in short for a retry policy.
            timeout: Seconds that an attempt may take, then it has failed; see `Task`.
            processes: Call the function in a process of its own.
            middleware: Around each execution, see `middleware`.

        Raises:
            UsageError: A parameter cannot be stored, or another function has that name.
        """
        make = partial(
            _hosting.make_task,
            self,
            name=name,
            queue=queue,
            retry=retry,
            max_attempts=max_attempts,
            timeout=timeout,
            processes=processes,
            middleware=middleware,
        )
        return make if function is None else make(function)

    def middleware(self, around: M) -> M:
        """Puts a function around each execution of each task of this object, in this process; the first is the outermost.

        ``@db.middleware`` before ``async def log(ctx, call_next)``, which gets the `TaskContext` of the run, and returns what
        ``await call_next()`` has returned, or something else. What it raises counts as raised by the task.
        """
        self.middlewares = (*self.middlewares, around)
        return around


class _TaskMaker(Protocol):
    """What ``@db.task(...)`` does with the function below it."""

    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]], /) -> "Task[P, R]": ...
    @overload
    def __call__(self, function: Callable[Concatenate[SyncTaskContext, P], R], /) -> "Task[P, R]": ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> "Task[P, R]": ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> "Task[P, R]": ...
