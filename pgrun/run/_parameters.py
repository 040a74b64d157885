"""The parameters of a function as the members of one JSON object: what tasks store and what models fill in.

`what` in messages is the function as people know it, for example ``task "send_mail"``.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NotRequired, get_type_hints

from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter
from typing_extensions import TypedDict  # pydantic asks for this one on Python < 3.12

from pgrun.errors import UsageError

_typed_dict: Any = TypedDict  # its fields are known at run time only
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def parameters_of(function: Callable[..., Any], what: str) -> list[inspect.Parameter]:
    """Its parameters with their annotations resolved; Any where there is none.

    Raises:
        UsageError: One cannot be given by name, or an annotation cannot be resolved; the message names it.
    """
    hints = hints_of(function, what)
    found = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in _NAMED:
            raise UsageError(f"{what}: {parameter} cannot be given by name, which is how arguments are stored")
        found.append(parameter.replace(annotation=hints.get(parameter.name, Any)))
    return found


def hints_of(function: Callable[..., Any], what: str) -> dict[str, Any]:
    """The annotations of a function, forward references resolved; `UsageError` if one cannot be."""
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise UsageError(f"{what}: an annotation cannot be resolved: {error}") from error


def adapter_of(annotation: Any, what: str) -> TypeAdapter[Any]:
    """Pydantic's adapter of a type; `UsageError` if it knows none."""
    try:
        return TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{what} has a type without a JSON form: {annotation!r}: {reason}") from error


def object_of(parameters: Iterable[inspect.Parameter]) -> Any:
    """The type of an object with one member per parameter and no other; those with a default may be left out."""
    fields = {
        each.name: each.annotation if each.default is each.empty else NotRequired[each.annotation]
        for each in parameters
    }
    arguments = _typed_dict("arguments", fields)
    arguments.__pydantic_config__ = ConfigDict(extra="forbid")
    return arguments
