"""How the function of a task is called: async here, plain in a thread or a process; within its time, inside its middleware."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from pgrun._durations import is_duration
from pgrun._task_process import call_in_process, check_reachable, places
from pgrun.errors import TaskTimeout, UsageError
from pgrun.run._arguments import Arguments, Result
from pgrun.run.task_context import Middleware, Proceed, TaskContext


class Execution:
    """Calls of one function.

    Args:
        name: Of the task.
        function: What is called.
        arguments: Its parameters.
        result: What it returns.
        context: The parameter that gets the context, if one does.
        timeout: Seconds that a call may take, middleware included.
        processes: Whether it is called in another process.

    Raises:
        UsageError: It cannot be called so.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        arguments: Arguments,
        result: Result,
        *,
        context: str | None,
        timeout: float | None,
        processes: bool,
    ) -> None:
        self._name = name
        self._function = function
        self._arguments = arguments
        self._result = result
        self._context = context
        self._timeout = timeout
        self._is_async = inspect.iscoroutinefunction(function)
        self._processes = processes
        if timeout is not None and not (is_duration(timeout) and timeout > 0):
            raise UsageError(f'task "{name}": timeout={timeout!r}: seconds, more than 0')
        if processes:
            if self._is_async or context:
                raise UsageError(f'task "{name}": processes=True is for plain functions without a context')
            check_reachable(name, function)

    def given(self, context: TaskContext | None) -> dict[str, Any]:
        """The argument that is not stored."""
        if self._context is None:
            return {}
        assert context is not None
        return {self._context: context if self._is_async else context.for_thread()}

    async def execute(self, data: str, context: TaskContext | None, middleware: Sequence[Middleware]) -> Any:
        """Calls it with stored arguments; else as `Task.execute`."""
        if not middleware and self._timeout is None and not self._processes:
            return await self._call(data, context)
        call: Proceed = partial(self._call, data, context)
        for each in reversed(middleware):
            assert context is not None
            call = partial(each, context, call)
        async with places() if self._processes else nullcontext():  # to wait for one is no part of its time
            if self._timeout is None:
                return await call()
            return await self._in_time(call)

    async def _in_time(self, call: Callable[[], Awaitable[Any]]) -> Any:
        with anyio.move_on_after(self._timeout) as scope:
            return await call()
        assert scope.cancelled_caught
        raise TaskTimeout(f"{self._name} took longer than {self._timeout:g} s")

    async def _call(self, data: str, context: TaskContext | None) -> Any:
        kwargs = self._arguments.load(data) | self.given(context)
        if self._is_async:
            return await self._function(**kwargs)
        if self._processes:
            return self._result.load(await call_in_process(self._name, self._function, data))
        # No limit of its own, anyio's is 40 for all: the slots of the worker are one.
        value = await anyio.to_thread.run_sync(partial(self._function, **kwargs), limiter=anyio.CapacityLimiter(1))
        return await value if isinstance(value, Awaitable) else value
