"""The arguments and the result of a task: by the annotations of its function to JSON and back, each checked once."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from pgrun.errors import OutputInvalid, UsageError
from pgrun.run._parameters import adapter_of, hints_of, object_of, parameters_of
from pgrun.run._storable import find_unstorable, path_text, to_jsonable


class Arguments:
    """The parameters of one function, all but perhaps one, as an object in JSON, one member each.

    Raises:
        UsageError: A parameter cannot be given by name, or its type has no JSON form; the message names it.
    """

    def __init__(self, name: str, function: Callable[..., Any], *, without: str | None = None) -> None:
        self._name = name
        parameters = [each for each in parameters_of(function, f'task "{name}"') if each.name != without]
        for each in parameters:
            adapter_of(each.annotation, f'task "{name}": parameter {each.name}')
        self._order = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
        arguments = object_of(parameters)
        self._form = _Form(TypeAdapter(arguments))
        self._many = _Form(TypeAdapter(list[arguments]))  # type: ignore[valid-type]

    def dump(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """The JSON of one call.

        Raises:
            UsageError: They do not fit the function, or cannot be stored; the message names the argument.
        """
        if args:
            kwargs = self.named(args, kwargs)
        try:
            return self._form.dump(kwargs, self._name)
        except ValidationError as error:
            raise UsageError(self._complaint(error)) from None

    def dump_many(self, calls: Sequence[Mapping[str, Any]]) -> bytes:
        """The JSON array of many calls.

        Raises:
            UsageError: One of them does not fit, or cannot be stored; the message has its number.
        """
        try:
            return self._many.dump(calls, self._name)
        except (ValidationError, UsageError):
            for number, call in enumerate(calls):
                try:
                    self.dump((), call)
                except UsageError as error:
                    raise UsageError(f"number {number}: {error}") from None
            raise

    def load(self, data: str) -> dict[str, Any]:
        """The keyword arguments that are stored.

        Raises:
            UsageError: They do not fit the function, which may have changed since; the message names the argument.
        """
        try:
            found: dict[str, Any] = self._form.load(data)
        except ValidationError as error:
            raise UsageError(self._complaint(error)) from None
        return found

    def named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments of a call by their names.

        Raises:
            UsageError: There are too many, or one is given twice.
        """
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
        annotation = hints_of(function, f'task "{name}"').get("return", Any)
        self._form = _Form(adapter_of(annotation, f'task "{name}": its result'))

    def dump(self, value: Any) -> bytes:
        """The JSON of a result.

        Raises:
            OutputInvalid: It does not fit the annotation, or cannot be stored.
        """
        try:
            return self._form.dump(value, "result")
        except (ValidationError, UsageError) as error:
            raise OutputInvalid(f"{self._name} returned what its annotation does not allow: {error}") from error

    def load(self, data: Any) -> Any:
        """A stored result, which was read as plain JSON data, as the annotated type.

        Raises:
            OutputInvalid: It no longer fits, because the type has changed since.
        """
        try:
            return self._form.load(to_json(data))
        except ValidationError as error:
            raise OutputInvalid(f"the stored result of {self._name} does not fit its annotation: {error}") from error


class _Form:
    """Values of one type as JSON that Postgres can store, and back."""

    def __init__(self, adapter: TypeAdapter[Any]) -> None:
        self._adapter = adapter

    def dump(self, value: Any, name: str) -> bytes:
        """The JSON of a value that fits, by the names of fields and without computed ones, so that it can be read again.

        Raises:
            ValidationError: It does not fit.
            UsageError: It cannot be stored; the message begins with the path.
        """
        valid = self._adapter.validate_python(value)
        try:
            data = self._adapter.dump_json(valid, by_alias=False, round_trip=True)
        except (PydanticSerializationError, UnicodeEncodeError) as error:
            raise UsageError(self._hindrance(valid, name) or f"{name}: {error}") from None
        if reason := self._hidden(valid, data, name):
            raise UsageError(reason)
        return data

    def load(self, data: str | bytes) -> Any:
        # As JSON, for only there a list may become a set and a text a date, however strict the type.
        return self._adapter.validate_json(data, by_alias=True, by_name=True)

    def _hidden(self, valid: Any, data: bytes, name: str) -> str | None:
        """What Postgres does not take although it has become JSON: NUL; and infinite numbers, which have become null."""
        reason = None
        if b"\\u0000" in data:
            reason = find_unstorable(self._adapter.dump_python(valid, mode="json", round_trip=True), name=name)
        if reason is None and b"null" in data:
            reason = _find_infinite(self._adapter.dump_python(valid, round_trip=True), name)
        return reason

    def _hindrance(self, valid: Any, name: str) -> str | None:
        """Why it does not become JSON; member by member, so that none is blamed for another."""
        data = self._adapter.dump_python(valid, by_alias=False, round_trip=True)
        members = (
            {path_text([_step(key)], root=name): item for key, item in data.items()} if isinstance(data, dict) else {}
        )
        for path, item in (members or {name: data}).items():
            try:
                to_jsonable(item, name=path)
            except UsageError as error:
                return str(error)
        return None


def _find_infinite(value: Any, path: str) -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{path}: is {value}, which is not a JSON number"
    members: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        members = value.items()
    elif isinstance(value, list | tuple | set | frozenset):
        members = enumerate(value)
    found = (_find_infinite(item, path_text([_step(key)], root=path)) for key, item in members)
    return next(filter(None, found), None)


def _step(key: Any) -> str | int:
    return key if isinstance(key, int) else str(key)
