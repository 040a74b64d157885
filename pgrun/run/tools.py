"""`@tool`: a Python function that a model may call. Here it is declared; `_tool_calls` executes it."""

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial, update_wrapper
from typing import Any, Generic, Literal, ParamSpec, TypeVar, get_args, overload

import anyio
import anyio.to_thread

from pgrun._calling import call_in_thread
from pgrun.errors import UsageError
from pgrun.models.base import ToolSpec
from pgrun.run._docstring import read_docstring
from pgrun.run._tool_schema import Signature
from pgrun.run.context import RunContext
from pgrun.run.requirement import RequirementKind

P = ParamSpec("P")
R = TypeVar("R")

Repeat = Literal["pure", "idempotent", "unsafe"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Tool(Generic[P, R]):
    """A function that a model may call; made by ``@tool``. Calling it calls the function, here and now.

    Args:
        function: Async, or plain: a plain function runs in a thread. Its parameters, except those annotated `RunContext`, are
            what the model gives, checked by their annotations. What it returns is shown to the model: a text as it is,
            anything else as JSON. What it raises is shown too, so that the model can do better; only `ToolFailed` ends the run.
        name: By which the model calls it. Default: the function's.
        description: What the model is told about it. Default: the function's docstring, whose section about arguments describes
            the parameters (Google, numpy or Sphinx style).
        repeat: What happens if it is called again because nobody knows whether the first call came to its end: nothing else
            than at the first (`pure`), nothing as long as `RunContext.idempotency_key` is the same (`idempotent`), or harm
            (`unsafe`): it is not repeated, but the run is paused until a person has decided. That is the default, because to be
            wrong costs a question then, and a second payment otherwise. To know, each call costs a statement before it begins.
        timeout: Seconds after which the model is told that there is no result. An async function is cancelled; a thread cannot
            be, and goes on unheeded. Default: as long as it takes.
        strict: Whether the provider is to enforce the types of the arguments. Default: if it can, that is without ``dict`` and
            ``Any``.
        requires_confirmation: Each call waits until a person has approved it: the run is paused meanwhile, which needs a
            database. At most one of this and the next two.
        requires_user_input: Each call waits until a person has filled in `user_input_fields`.
        user_input_fields: Names of the parameters that the person gives; the model does not know of them. Default: all.
        external_execution: The function is never called; each call waits until somebody says what it returned.

    Attributes:
        waits_for: What each call waits for: `confirmation`, `user_input` or `external`; None for nothing.
        fields: What a person fills in.

    Raises:
        UsageError: An argument cannot be; for a parameter that cannot be described it names the parameter.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        repeat: Repeat = "unsafe",
        timeout: float | None = None,
        strict: bool | None = None,
        requires_confirmation: bool = False,
        requires_user_input: bool = False,
        user_input_fields: Sequence[str] | None = None,
        external_execution: bool = False,
    ) -> None:
        self.name = _checked_name(function, name)
        self.waits_for = _checked_wait(
            self.name,
            confirmation=requires_confirmation,
            user_input=requires_user_input,
            external=external_execution,
        )
        self.repeat = _checked_repeat(self.name, repeat)
        self.timeout = _checked_timeout(self.name, timeout)
        self.function = function
        documented = read_docstring(inspect.getdoc(function))
        what = f'tool "{self.name}"'
        self._signature = Signature(
            function,
            what,
            name=self.name,
            descriptions=documented.parameters,
            strict=strict,
            by_person=_checked_fields(self, user_input_fields),
        )
        self.fields = self._signature.fields
        self.spec = ToolSpec(
            self.name,
            documented.text if description is None else description,
            self._signature.schema,
            self._signature.is_strict,
        )
        update_wrapper(self, function, updated=())

    def __repr__(self) -> str:
        return f"<Tool {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function itself."""
        return self.function(*args, **kwargs)

    @property
    def wants_context(self) -> bool:
        """Whether it asks for the `RunContext`."""
        return self._signature.wants_context

    def load(self, arguments: str, context: RunContext) -> dict[str, Any]:
        """The keyword arguments of a call, from the JSON that a model wrote and the run that calls.

        Raises:
            ValidationError: They do not fit.
        """
        return self._signature.load(arguments, context)

    def load_input(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments that a person gave for `fields`, from JSON data.

        Raises:
            ValidationError: They do not fit.
        """
        return self._signature.load_input(values)

    async def execute(self, kwargs: dict[str, Any]) -> Any:
        """Calls the function and returns its result; the agent loop does that.

        Raises:
            TimeoutError: There was no result in time.
            Exception: Whatever the function raises.
        """
        function: Callable[..., Any] = self.function
        with anyio.move_on_after(self.timeout):
            if inspect.iscoroutinefunction(function):
                return await function(**kwargs)
            return await call_in_thread(partial(function, **kwargs), may_leave=self.timeout is not None)
        raise TimeoutError(f"no result within {self.timeout:g} s")


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    repeat: Repeat = "unsafe",
    timeout: float | None = None,
    strict: bool | None = None,
    requires_confirmation: bool = False,
    requires_user_input: bool = False,
    user_input_fields: Sequence[str] | None = None,
    external_execution: bool = False,
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...
def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Makes a tool of a function, as ``@tool`` or ``@tool(name=…)``; see `Tool` for the options."""
    return partial(Tool, **options) if function is None else Tool(function, **options)


def as_tool(item: object) -> Tool[..., Any]:
    """A tool as it is, a plain function or an agent as a tool; `UsageError` for anything else."""
    if isinstance(item, Tool):
        return item
    if not isinstance(item, type) and (agent_as_tool := getattr(item, "as_tool", None)):
        made: Tool[..., Any] = agent_as_tool()
        return made
    if not callable(item) or isinstance(item, type):
        raise UsageError(f"tools: {item!r:.100} is neither a function nor a tool nor an agent")
    return Tool(item)


def _checked_name(function: object, name: str | None) -> str:
    if not callable(function) or isinstance(function, type):
        raise UsageError(f"@tool goes before a function, not {function!r:.100}")
    if isinstance(function, partial):  # the model would see what was bound by name, and could give something else
        raise UsageError(f"@tool: {function!r:.100} is no function; write one that calls it")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(f"@tool: {function!r:.100} yields; a tool returns its result")
    found = getattr(function, "__name__", None) if name is None else name
    if not isinstance(found, str) or not _NAME.fullmatch(found):
        raise UsageError(f"tool name {found!r}: letters, digits, _ and -, at most 64; give one with @tool(name=…)")
    return found


def _checked_repeat(name: str, repeat: Repeat) -> Repeat:
    if repeat not in get_args(Repeat):
        raise UsageError(f'tool "{name}": repeat={repeat!r} is none of {", ".join(get_args(Repeat))}')
    return repeat


def _checked_timeout(name: str, timeout: float | None) -> float | None:
    if timeout is not None and (not isinstance(timeout, int | float) or not 0 < timeout < math.inf):
        raise UsageError(f'tool "{name}": timeout={timeout!r}: seconds, more than 0')
    return timeout


def _checked_wait(name: str, *, confirmation: bool, user_input: bool, external: bool) -> RequirementKind | None:
    if confirmation + user_input + external > 1:
        raise UsageError(
            f'tool "{name}": at most one of requires_confirmation, requires_user_input and external_execution'
        )
    if confirmation:
        return "confirmation"
    if user_input:
        return "user_input"
    return "external" if external else None


def _checked_fields(tool: Tool[..., Any], names: Sequence[str] | None) -> Sequence[str] | None:
    """The parameters that a person gives; None for all of them."""
    if tool.waits_for == "user_input" and not isinstance(names, str):
        return names or None
    if names is not None:
        raise UsageError(
            f'tool "{tool.name}": user_input_fields is a list of names, and needs requires_user_input=True'
        )
    return ()
