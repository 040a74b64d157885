"""A stored JSON schema → a validator, so that a worker without the user's types can tell a valid answer from an invalid one.

The schema is translated into a `pydantic_core` schema: nothing is converted, errors have Pydantic's words and locations, and
no other package is needed. Each part says itself that it is strict, for an object does not hand that down to its properties.
The validator only judges; what is stored is the JSON that the model wrote. Keys that the schema does not name are refused,
because the strict schema that the model was given promised there would be none.
"""

import re
from typing import Any, Literal

from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, SchemaError, SchemaValidator
from pydantic_core import core_schema as core

from pgrun.errors import UsageError
from pgrun.run._formats import NUMBER_BOUNDS, Check, decimal_check, text_check
from pgrun.run._json_schema import (
    Definitions,
    Schema,
    allowed_values,
    definition_name,
    json_types,
    variants,
)
from pgrun.run._storable import canonical_json


def json_check(json_schema: Schema, *, wrapped: bool) -> SchemaValidator:
    """Returns a validator of JSON text.

    Args:
        json_schema: A stored schema that `_strict.strict_schema` accepted.
        wrapped: The text is ``{"value": …}`` and the schema speaks of the value.
    """
    translation = _Translation(json_schema)
    schema = translation.node(json_schema)
    if wrapped:
        schema = _object({"value": core.typed_dict_field(schema)})
    if translation.done:
        schema = core.definitions_schema(schema, list(translation.done.values()))
    return SchemaValidator(schema)


class _Translation:
    """One walk from the root; definitions are translated when they are first met."""

    def __init__(self, json_schema: Schema) -> None:
        self._definitions = Definitions(json_schema)
        self.done: dict[str, CoreSchema] = {}

    def node(self, node: Schema) -> CoreSchema:
        node = self._definitions.expanded(node)
        if "$ref" in node:
            return self._reference(node["$ref"])
        if variants(node):
            return self._union(node)
        members = [self._typed(node, name) for name in json_types(node)]
        schema = members[0] if len(members) == 1 else core.union_schema(list(members), mode="left_to_right")
        values = allowed_values(node)
        return schema if values is None else core.no_info_after_validator_function(_one_of(values), schema)

    def _reference(self, ref: str) -> CoreSchema:
        if ref not in self.done:
            self.done[ref] = core.any_schema()  # a recursive definition finds itself done
            self.done[ref] = {**self.node(self._definitions.followed({"$ref": ref})), "ref": ref}
        return core.definition_reference_schema(ref)

    def _union(self, node: Schema) -> CoreSchema:
        members = [member for member in variants(node) if member.get("type") != "null"]
        if len(members) == 1:
            schema = self.node(members[0])
        elif tags := self._tags(node):
            choices = {tag: self.node(member) for tag, member in tags.items()}
            schema = core.tagged_union_schema(choices, node["discriminator"]["propertyName"])
        else:
            schema = core.union_schema([(self.node(m), _label(m)) for m in members], mode="left_to_right")
        return schema if len(members) == len(variants(node)) else core.nullable_schema(schema)

    def _tags(self, node: Schema) -> dict[Any, Schema] | None:
        """Returns which value of the discriminator chooses which member; None where a member does not tell."""
        name = node.get("discriminator", {}).get("propertyName")
        tags: dict[Any, Schema] = {}
        for member in variants(node):
            target = self._definitions.target(member["$ref"]) if "$ref" in member else member
            values = allowed_values(self._definitions.expanded(target.get("properties", {}).get(name, {})))
            if not values:
                return None
            tags.update(dict.fromkeys(values, member))
        return tags

    def _typed(self, node: Schema, name: str) -> CoreSchema:
        if name == "object":
            return self._object(node)
        if name == "array":
            return self._array(node)
        if name == "string":
            return _string(node)
        if name in ("integer", "number"):
            return _number(node, name)
        return core.bool_schema(strict=True) if name == "boolean" else core.none_schema()

    def _object(self, node: Schema) -> CoreSchema:
        required = node.get("required", ())
        properties = node.get("properties", {}).items()
        return _object(
            {key: core.typed_dict_field(self.node(value), required=key in required) for key, value in properties}
        )

    def _array(self, node: Schema) -> CoreSchema:
        schema = core.list_schema(
            self.node(node["items"]), min_length=node.get("minItems"), max_length=node.get("maxItems"), strict=True
        )
        return core.no_info_after_validator_function(_unique, schema) if node.get("uniqueItems") else schema


def _object(fields: dict[str, core.TypedDictField]) -> CoreSchema:
    return core.typed_dict_schema(fields, extra_behavior="forbid", strict=True)


def _string(node: Schema) -> CoreSchema:
    pattern = node.get("pattern")
    schema = core.str_schema(
        min_length=node.get("minLength"),
        max_length=node.get("maxLength"),
        pattern=pattern,
        regex_engine=_regex_engine(pattern) if pattern else None,
        strict=True,
    )
    check = decimal_check(node) if node.get("format") == "decimal" else text_check(node.get("format", ""))
    return core.no_info_after_validator_function(check, schema) if check else schema


def _regex_engine(pattern: str) -> Literal["rust-regex", "python-re"]:
    """Prefers Rust, where ``$`` does not match before a last newline; Python serves patterns with lookaround."""
    try:
        SchemaValidator(core.str_schema(pattern=pattern, regex_engine="rust-regex"))
        return "rust-regex"
    except SchemaError:
        pass
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{pattern!r} is no regular expression: {error}") from None
    return "python-re"


def _number(node: Schema, name: str) -> CoreSchema:
    bounds: dict[str, Any] = {ours: node[key] for key, ours in NUMBER_BOUNDS.items() if key in node}
    whole: dict[str, Any] = {key: int(bound) for key, bound in bounds.items() if bound == int(bound)}
    if name == "integer" and len(whole) == len(bounds):
        return core.int_schema(**whole, strict=True)
    schema: CoreSchema = core.float_schema(allow_inf_nan=False, **bounds, strict=True)
    if name == "integer":
        return core.chain_schema([core.int_schema(strict=True), schema])
    if node.get("format") == "decimal":
        return core.no_info_after_validator_function(decimal_check(node), schema)
    return schema


def _one_of(values: list[Any]) -> Check:
    # In Python True == 1; in JSON it is not.
    allowed = {(isinstance(value, bool), value) for value in values}
    expected = " or ".join(filter(None, [", ".join(map(repr, values[:-1])), *map(repr, values[-1:])]))

    def check(value: Any) -> Any:
        if (isinstance(value, bool), value) not in allowed:
            raise PydanticKnownError("literal_error", {"expected": expected})
        return value

    return check


def _unique(items: list[Any]) -> list[Any]:
    if len(set(map(canonical_json, items))) < len(items):
        raise PydanticCustomError("unique_items", "Items should be unique")
    return items


def _label(node: Schema) -> str:
    """Names a member of a union in the location of its errors."""
    return definition_name(node["$ref"]) if "$ref" in node else str(node.get("title") or node.get("type") or "enum")
