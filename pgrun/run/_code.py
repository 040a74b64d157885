"""Functions of users beside tools: hooks, callable instructions, callable dependencies. They ask for what they want to know."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pgrun._calling import call_in_thread
from pgrun.errors import AttemptError, HookFailed, UsageError
from pgrun.run._parameters import parameters_of
from pgrun.run.base import RunOutput
from pgrun.run.context import RunContext, RunInput

_BY_TYPE: dict[Any, str] = {RunContext: "run_context", RunInput: "run_input", RunOutput: "run_output"}
_OF_CONTEXT = ("session_state", "dependencies", "metadata", "user_id", "session_id")
_ALWAYS = ("run_context", "context", *_OF_CONTEXT)


class Code:
    """A function that workers call with what its parameters ask for, by their annotations or names.

    Args:
        function: Async, or plain: a plain function runs in a thread.
        what: It, in messages.
        offered: What it may ask for beside the context: `run_input` or `run_output`.

    Raises:
        UsageError: It is no function, or asks for something else; the message names the parameter.
    """

    def __init__(self, function: Callable[..., Any], what: str, *offered: str) -> None:
        if not callable(function) or isinstance(function, type):
            raise UsageError(f"{what}: a function, not {function!r:.100}")
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        self._what = f"{what} {self.name}"
        self._wanted = {each.name: self._source(each, (*_ALWAYS, *offered)) for each in _parameters(function, what)}

    def __repr__(self) -> str:
        return f"<{self._what}>"

    def _source(self, parameter: inspect.Parameter, known: tuple[str, ...]) -> str | None:
        annotation = getattr(parameter.annotation, "__origin__", parameter.annotation)
        source = _BY_TYPE.get(annotation, parameter.name) if isinstance(annotation, type) else parameter.name
        if source in known:
            return source
        if parameter.default is parameter.empty:
            raise UsageError(
                f"{self._what}: nothing is known for its parameter {parameter.name}; there are {', '.join(known)}"
            )
        return None

    async def call(self, context: RunContext, **offered: Any) -> Any:
        """Calls it.

        Raises:
            HookFailed: It raised; errors of attempts are passed on as they are.
        """
        values = self._values(context, offered)
        try:
            if inspect.iscoroutinefunction(self.function):
                return await self.function(**values)
            return await call_in_thread(partial(self.function, **values))
        except AttemptError:
            raise
        except (Exception, SystemExit) as error:
            raise HookFailed(f"{self._what} raised {type(error).__name__}: {error}") from error

    def _values(self, context: RunContext, offered: Mapping[str, Any]) -> dict[str, Any]:
        known = {"run_context": context, "context": context, **offered}
        known |= {name: getattr(context, name) for name in _OF_CONTEXT}
        return {name: known[source] for name, source in self._wanted.items() if source is not None}


def _parameters(function: Callable[..., Any], what: str) -> list[inspect.Parameter]:
    try:
        inspect.signature(function)
    except ValueError:  # some builtins
        return []
    return parameters_of(function, what)
