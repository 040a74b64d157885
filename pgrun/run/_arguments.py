"""The arguments and the result of a task: by the annotations of its function to JSON and back, each checked once."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NotRequired, get_type_hints

from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError
from typing_extensions import TypedDict  # pydantic asks for this one on Python < 3.12

from pgrun.errors import OutputInvalid, UsageError
from pgrun.run._storable import find_unstorable

_typed_dict: Any = TypedDict  # its fields are known at run time only
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Arguments:
    """The parameters of one function as an object in JSON, one member each.

    Raises:
        UsageError: A parameter cannot be given by name, or its type has no JSON form; the message names it.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._name = name
        self._order: list[str] = []
        hints = _hints(name, function)
        fields: dict[str, Any] = {}
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind not in _NAMED:
                raise UsageError(
                    f'task "{name}": {parameter} cannot be given by name, which is how arguments are stored'
                )
            annotation = hints.get(parameter.name, Any)
            _adapter(annotation, f'task "{name}": parameter {parameter.name}')
            optional = parameter.default is not parameter.empty
            fields[parameter.name] = NotRequired[annotation] if optional else annotation
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                self._order.append(parameter.name)
        arguments = _typed_dict("arguments", fields)
        arguments.__pydantic_config__ = ConfigDict(extra="forbid")
        self._adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(arguments)

    def dump(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """The JSON of one call.

        Raises:
            UsageError: They do not fit the function, or cannot be stored; the message names the argument.
        """
        if args:
            kwargs = self._named(args, kwargs)
        try:
            data = self._adapter.dump_json(self._adapter.validate_python(kwargs))
        except ValidationError as error:
            raise UsageError(self._complaint(error)) from None
        except (PydanticSerializationError, UnicodeEncodeError) as error:
            raise UsageError(find_unstorable(kwargs, name=self._name) or f"{self._name}: {error}") from None
        if b"\\u0000" in data and (reason := find_unstorable(dict(kwargs), name=self._name)):
            raise UsageError(reason)
        return data

    def load(self, data: str) -> dict[str, Any]:
        """The keyword arguments that are stored.

        Raises:
            UsageError: They do not fit the function, which may have changed since; the message names the argument.
        """
        try:
            return self._adapter.validate_json(data)
        except ValidationError as error:
            raise UsageError(self._complaint(error)) from None

    def _named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if len(args) > len(self._order):
            raise UsageError(f"{self._name}: {len(args)} arguments by position, it takes {len(self._order)}")
        named = dict(zip(self._order, args, strict=False))
        if twice := named.keys() & kwargs.keys():
            raise UsageError(f"{self._name}: {', '.join(sorted(twice))} given by position and by name")
        return {**named, **kwargs}

    def _complaint(self, error: ValidationError) -> str:
        found = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False)]
        return f"{self._name}: {'; '.join(found)}"


class Result:
    """The result of one function.

    Raises:
        UsageError: Its type has no JSON form.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._name = name
        annotation = _hints(name, function).get("return", Any)
        self._adapter = _adapter(annotation, f'task "{name}": its result')

    def dump(self, value: Any) -> bytes:
        """The JSON of a result.

        Raises:
            OutputInvalid: It does not fit the annotation, or has no JSON form.
        """
        try:
            return self._adapter.dump_json(self._adapter.validate_python(value))
        except (ValidationError, PydanticSerializationError, UnicodeEncodeError) as error:
            raise OutputInvalid(f"{self._name} returned what its annotation does not allow: {error}") from error

    def load(self, data: Any) -> Any:
        """A stored result, which was read as plain JSON data, as the annotated type.

        Raises:
            OutputInvalid: It no longer fits, because the type has changed since.
        """
        try:
            return self._adapter.validate_python(data)
        except ValidationError as error:
            raise OutputInvalid(f"the stored result of {self._name} does not fit its annotation: {error}") from error


def _hints(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        raise UsageError(f'task "{name}": an annotation cannot be resolved: {error}') from error


def _adapter(annotation: Any, what: str) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise UsageError(f"{what} has a type without a JSON form: {annotation!r}") from error
