"""The signature of a tool: as a JSON schema for the model, and as a check of the arguments that the model gives."""

import inspect
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, get_args

from pydantic import TypeAdapter
from pydantic_core import to_json

from pgrun.errors import UsageError
from pgrun.run._declared import SchemaGenerator, stored_form
from pgrun.run._json_schema import NO_SCHEMA, Schema
from pgrun.run._parameters import adapter_of, object_of, parameters_of
from pgrun.run._strict import strict_schema
from pgrun.run.context import RunContext
from pgrun.run.requirement import InputField


class Signature:
    """The parameters of a tool.

    Args:
        function: Of the tool.
        what: It, in messages.
        name: Its name, where the paths in messages begin.
        descriptions: What each parameter means; one in the annotation is preferred.
        strict: Whether the provider is to enforce the schema. None: if it can.
        by_person: The parameters that a person fills in, and the model does not know; None for all.

    Attributes:
        schema: What the model is told.
        is_strict: Whether `schema` is in the subset of strict mode.
        fields: What a person is told.

    Raises:
        UsageError: A parameter cannot be described; the message names it.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        what: str,
        *,
        name: str,
        descriptions: Mapping[str, str],
        strict: bool | None,
        by_person: Collection[str] | None = (),
    ) -> None:
        parameters = parameters_of(function, what)
        given = [each for each in parameters if not _is_context(each)]
        self._filled = [each.name for each in parameters if _is_context(each)]
        for each in given:
            _check(each, f"{what}: parameter {each.name}")
        names = {each.name for each in given} if by_person is None else {*by_person}
        if unknown := names - {each.name for each in given}:
            raise UsageError(f"{what}: user_input_fields: it has no parameter {', '.join(sorted(unknown))}")
        asked = [each for each in given if each.name in names]
        shown = [each for each in given if each.name not in names]
        self._adapter: TypeAdapter[Any] = TypeAdapter(object_of(shown))
        self._input: TypeAdapter[Any] = TypeAdapter(object_of(asked))
        plain = _described(self._adapter, shown, descriptions)
        self.schema, self.is_strict = _strictest(plain, name, strict)
        self.fields = _fields(_described(self._input, asked, descriptions))

    @property
    def wants_context(self) -> bool:
        """Whether a parameter is filled in with the context of the run."""
        return bool(self._filled)

    def load(self, arguments: str, context: RunContext) -> dict[str, Any]:
        """The keyword arguments of a call, from the JSON that the model wrote and the run.

        Raises:
            ValidationError: The JSON does not fit the signature.
        """
        # Some servers write nothing where there is nothing to say.
        given: dict[str, Any] = self._adapter.validate_json(arguments or "{}", by_alias=True, by_name=True)
        return {**given, **dict.fromkeys(self._filled, context)}

    def load_input(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments that a person gave, from JSON data.

        Raises:
            ValidationError: They do not fit the signature.
        """
        given: dict[str, Any] = self._input.validate_json(to_json(values), by_alias=True, by_name=True)
        return given


def _is_context(parameter: inspect.Parameter) -> bool:
    named = parameter.name == "run_context" and parameter.annotation is Any
    return named or parameter.annotation is RunContext or RunContext in get_args(parameter.annotation)


def _check(parameter: inspect.Parameter, what: str) -> None:
    if parameter.name == "self":
        raise UsageError(f"{what} is nothing a model could give; make a tool of the bound method: tool(thing.method)")
    if reason := _gap(_schema(adapter_of(parameter.annotation, what))):
        raise UsageError(f"{what} has a type without a JSON schema: {parameter.annotation!r}: {reason}")


def _schema(adapter: TypeAdapter[Any]) -> Schema:
    return adapter.json_schema(mode="validation", by_alias=True, schema_generator=SchemaGenerator)


def _described(
    adapter: TypeAdapter[Any], parameters: Collection[inspect.Parameter], descriptions: Mapping[str, str]
) -> Schema:
    schema = _schema(adapter)
    schema.pop("title", None)
    for each in parameters:
        _describe(schema["properties"][each.name], each, descriptions.get(each.name))
    return schema


def _fields(schema: Schema) -> tuple[InputField, ...]:
    """One for each property; what its schema refers to comes along."""
    required, shared = schema.get("required", ()), {key: schema[key] for key in ("$defs",) if key in schema}
    return tuple(
        InputField(
            name=name, description=node.pop("description", ""), type={**node, **shared}, required=name in required
        )
        for name, node in schema.get("properties", {}).items()
    )


def _gap(node: Any) -> str | None:
    """The reason that `SchemaGenerator` has left in place of a type without a schema, if there is one."""
    if isinstance(node, dict) and NO_SCHEMA in node:
        return str(node[NO_SCHEMA])
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return next(filter(None, map(_gap, children)), None)


def _describe(node: Schema, parameter: inspect.Parameter, description: str | None) -> None:
    """Adds what the docstring says, and the default, which the model has to repeat where strict mode requires everything."""
    text = node.get("description", description or "")
    if isinstance(parameter.default, str | int | float):
        text = f"{text} Default: {json.dumps(parameter.default)}.".strip()
    if text:
        node["description"] = text


def _strictest(schema: Schema, name: str, strict: bool | None) -> tuple[Schema, bool]:
    if strict is False:
        return schema, False
    try:
        return strict_schema(stored_form(schema, name=name), name=name), True
    except UsageError:
        if strict:
            raise
        return schema, False
