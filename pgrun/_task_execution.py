"""How the function of a task is called: async here, plain in a thread or a process; inside of its middleware."""

import inspect
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from pgrun._calling import call_in_thread
from pgrun._task_process import call_in_process, check_reachable
from pgrun.errors import UsageError
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
        processes: bool,
    ) -> None:
        self._name = name
        self._function = function
        self._arguments = arguments
        self._result = result
        self._context = context
        self._is_async = inspect.iscoroutinefunction(function)
        self._processes = processes
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

    def begin(
        self, data: str, context: TaskContext | None, middleware: Sequence[Middleware], *, may_leave: bool
    ) -> Coroutine[Any, Any, Any]:
        """A call with stored arguments, to be awaited; else as `Task.execute`."""
        if self._is_async:
            call: Proceed = partial(self._function, **self._arguments.load(data), **self.given(context))
        elif self._processes:
            call = partial(self._call_in_process, data)
        else:
            function = partial(self._function, **self._arguments.load(data), **self.given(context))
            call = partial(call_in_thread, function, may_leave=may_leave)
        for each in reversed(middleware):
            assert context is not None
            call = partial(each, context, call)
        return call()

    async def _call_in_process(self, data: str) -> Any:
        return self._result.load(await call_in_process(self._name, self._function, data))
