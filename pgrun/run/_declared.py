"""A Python type → the JSON schema that is stored with a run, the first step of declaring what an agent answers with."""

import re
from types import UnionType
from typing import Annotated, Any, ForwardRef, Literal, Union, get_args, get_origin

from pydantic import PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import SchemaError, core_schema

from pgrun.errors import UsageError
from pgrun.run._json_schema import NAME, NO_SCHEMA, ORDER, Schema
from pgrun.run._storable import find_unstorable

_MAX_NAME = 64
_NOT_IN_NAMES = r"[^A-Za-z0-9_-]+"
_NO_ADAPTER = (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError, SchemaError, TypeError)
# What Decimal reads, without lookaround; Pydantic's own pattern has some in one version and none at all in the next.
_DECIMAL = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_NAMES_OF_SCHEMAS = {"properties", "$defs"}
_LISTS_OF_SCHEMAS = {"anyOf", "oneOf", "allOf", "prefixItems"}


def adapter_of(output_type: Any) -> TypeAdapter[Any]:
    """Returns Pydantic's adapter of the type; UsageError where Pydantic knows no way to validate it."""
    if isinstance(output_type, str | dict | ForwardRef):
        raise UsageError(f"{output_type!r} is no type; for a JSON schema use OutputSchema.from_json")
    try:
        return TypeAdapter(output_type)
    except _NO_ADAPTER as error:
        raise UsageError(f"{type_name(output_type)} cannot be an output type: {error}") from error


def json_schema_of(adapter: TypeAdapter[Any], *, name: str) -> Schema:
    """Returns the schema of what the type accepts, in the form in which it is stored."""
    try:
        schema = adapter.json_schema(mode="validation", by_alias=True, schema_generator=SchemaGenerator)
    except (PydanticUserError, TypeError) as error:
        raise UsageError(f"{name} has no JSON schema: {error}") from error
    return stored_form(schema, name=name)


def stored_form(json_schema: Schema, *, name: str | None = None) -> Schema:
    """Returns the schema with the name it is sent under and the order of its properties; unchanged if it has both."""
    name = name or json_schema.get(NAME) or json_schema.get("title") or "output"
    if reason := find_unstorable(json_schema, name=f"the JSON schema of {name}"):
        raise UsageError(reason)
    return {**_ordered(json_schema), NAME: schema_name(name)}


def schema_name(name: str) -> str:
    """Returns the name with what the provider does not allow replaced: ``^[A-Za-z0-9_-]{1,64}$``."""
    return re.sub(_NOT_IN_NAMES, "_", re.sub(_NOT_IN_NAMES + r"\Z", "", name))[:_MAX_NAME] or "output"


def type_name(output_type: Any) -> str:
    """Returns a readable name of any type: ``"City"``, ``"list[City]"``, ``"City_or_None"``."""
    origin, arguments = get_origin(output_type), get_args(output_type)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin in (Union, UnionType):
        return "_or_".join(map(type_name, arguments))
    if origin is Literal:
        return f"Literal[{', '.join(map(str, arguments))}]"
    if output_type is type(None):
        return "None"
    name = str(getattr(origin or output_type, "__name__", output_type))
    return f"{name}[{', '.join(map(type_name, arguments))}]" if arguments else name


def _ordered(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    schema = {key: _ordered_part(key, value) for key, value in node.items()}
    return {**schema, ORDER: list(schema["properties"])} if "properties" in schema and ORDER not in schema else schema


def _ordered_part(key: str, value: Any) -> Any:
    if key in _NAMES_OF_SCHEMAS and isinstance(value, dict):
        return {name: _ordered(schema) for name, schema in value.items()}
    if key in _LISTS_OF_SCHEMAS and isinstance(value, list):
        return [_ordered(schema) for schema in value]
    return _ordered(value) if key == "items" else value


class SchemaGenerator(GenerateJsonSchema):
    """Pydantic's schema, with what a worker without the type needs to know about it."""

    # Defaults are not sent: the model has to fill in every property. So it does not matter that one has no JSON form.
    ignored_warning_kinds = {"non-serializable-default"}  # noqa: RUF012

    def handle_invalid_for_json_schema(self, schema: core_schema.CoreSchema, error_info: str) -> JsonSchemaValue:
        """Leaves a mark in place of the type, which is later reported with the path of its field."""
        return {NO_SCHEMA: error_info}

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """Bounds and digits for both spellings of a Decimal, the number and the text, and a pattern without lookaround."""
        produced = super().decimal_schema(schema)
        number = {**produced["anyOf"][0], "format": "decimal"}
        digits = {"maxDigits": schema.get("max_digits"), "decimalPlaces": schema.get("decimal_places")}
        number |= {key: value for key, value in digits.items() if value is not None}
        return {"anyOf": [number, {**number, "type": "string", "pattern": _DECIMAL}]}
