"""The provider's schema: a stored JSON schema → what OpenAI's strict mode accepts, or a UsageError with the field's path.

A worker sends it with every model call and makes it from the stored schema alone. Declaring a type makes it too, so a type
that cannot be sent is refused before anything is submitted. The rules are those of OpenAI's guide to structured outputs,
section "Supported schemas", read in 2026, and what the API was seen to reject beside it; each is named where it is applied.
"""

import re
from typing import Any

from pgrun.errors import UsageError
from pgrun.run import _strict_limits
from pgrun.run._json_schema import (
    NO_SCHEMA,
    ORDER,
    Definitions,
    Schema,
    allowed_values,
    definition_name,
    is_wrapped,
    json_types,
    type_of,
    variants,
)

_TYPES = {"object", "array", "string", "integer", "number", "boolean", "null"}
_KEPT = {
    "integer": ("multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"),
    "number": ("multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"),
    "array": ("minItems", "maxItems"),
}
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
# The API answers 400 to lookaround; other groups with a question mark, back references and \A \Z \z are not ECMA either.
_FOREIGN_REGEX = re.compile(r"\(\?(?!:)|\\[1-9AZz]")
# Listed as unsupported, and none could be left out without allowing what it forbids. An allOf of one is merged before.
_COMPOSITION = {
    "allOf",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "patternProperties",
    "dependentRequired",
    "dependentSchemas",
}


def strict_schema(json_schema: Schema, *, name: str) -> Schema:
    """Returns the strict form of a stored schema.

    Args:
        json_schema: As Pydantic writes it, with `propertyOrdering` where the order of properties matters.
        name: Where the paths in messages begin.

    Raises:
        UsageError: Strict mode cannot carry it; the message begins with the path of the field.
    """
    translation = _Translation(json_schema)
    schema = translation.node(translation.definitions.followed(json_schema), name)
    if is_wrapped(json_schema):
        schema = _object({"value": schema})
    if translation.done:
        schema = {**schema, "$defs": translation.done}
    _strict_limits.check(schema, name=name)
    return schema


class _Translation:
    """One walk from the root, entering each definition when it is first met, so that messages can name a path."""

    def __init__(self, json_schema: Schema) -> None:
        self.definitions = Definitions(json_schema)
        self.done: dict[str, Schema] = {}

    def node(self, node: Any, path: str) -> Schema:
        if not isinstance(node, dict):
            raise UsageError(f"{path}: the schema {node!r} says nothing about the value; give it a type")
        node = self.definitions.expanded(node)
        if "$ref" in node:
            return self._reference(node["$ref"], path)
        _reject_untranslatable(node, path)
        described = {key: node[key] for key in ("title", "description") if key in node}
        if members := variants(node):
            # "oneOf is not permitted": anyOf says the same wherever a discriminator tells the members apart.
            return {**described, "anyOf": [self.node(member, path) for member in members]}
        return {**described, **self._typed(node, path)}

    def _reference(self, ref: str, path: str) -> Schema:
        name = definition_name(ref)
        if name not in self.done:
            self.done[name] = {}  # a recursive definition finds itself done
            self.done[name] = self.node(self.definitions.followed({"$ref": ref}), path)
        return {"$ref": ref}

    def _typed(self, node: Schema, path: str) -> Schema:
        types = json_types(node)
        if not types:
            raise UsageError(f"{path}: any value is allowed here; give it a type (not Any, object or JsonValue)")
        schema: Schema = {"type": types[0] if len(types) == 1 else types, **_values(node, path)}
        for name in types:
            schema |= {key: node[key] for key in _KEPT.get(name, ()) if key in node}
        if "string" in types:
            schema |= _text(node, path)
        if "array" in types:
            schema["items"] = self._items(node, path)
        if "object" in types:
            schema |= self._properties(node, path)
        return schema

    def _items(self, node: Schema, path: str) -> Schema:
        if "prefixItems" in node:
            raise UsageError(f"{path}: a tuple has no names for its items; use a model with fields, or list[...]")
        return self.node(node.get("items", {}), f"{path}[]")

    def _properties(self, node: Schema, path: str) -> Schema:
        properties = node.get("properties", {})
        if node.get("additionalProperties", "properties" not in node) is not False:
            raise UsageError(f"{path}: {_open_keys(properties)}; use a list of key/value objects")
        names = [*dict.fromkeys(name for name in [*node.get(ORDER, ()), *properties] if name in properties)]
        return _object({name: self.node(properties[name], f"{path}.{name}") for name in names})


def _reject_untranslatable(node: Schema, path: str) -> None:
    if NO_SCHEMA in node:
        raise UsageError(f"{path}: has no JSON schema: {node[NO_SCHEMA]}")
    if unknown := _COMPOSITION.intersection(node):
        raise UsageError(f"{path}: the provider's strict mode does not know {', '.join(map(repr, sorted(unknown)))}")
    if unknown := set(json_types(node)) - _TYPES:
        raise UsageError(f"{path}: JSON has no type {', '.join(map(repr, unknown))}")
    if variants(node) and {"type", "const", "enum", "properties", "items"}.intersection(node):
        raise UsageError(f"{path}: a union cannot have a type beside it; write the type into its members")


def _object(properties: Schema) -> Schema:
    """Every property is required and no other is allowed; a nullable type is the documented way to leave one out."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _open_keys(properties: Schema) -> str:
    return 'extra="allow" leaves the keys open' if properties else "dict[str, ...] has no fixed keys"


def _values(node: Schema, path: str) -> Schema:
    for value in allowed_values(node) or ():
        if type_of(value) in ("array", "object"):
            raise UsageError(f"{path}: {value!r} is no scalar; an enum holds text, numbers, true, false or null")
    return {key: node[key] for key in ("const", "enum") if key in node}


def _text(node: Schema, path: str) -> Schema:
    if node.get("format") == "binary":
        raise UsageError(f"{path}: bytes are no text; use str, or Base64Bytes")
    kept: Schema = {}
    if "pattern" in node and not _FOREIGN_REGEX.search(node["pattern"]):
        kept["pattern"] = node["pattern"]
    text_format = str(node.get("format"))
    if text_format in _FORMATS:
        kept["format"] = text_format
    elif text_format.startswith("uuid"):  # Pydantic's uuid4 and its kin
        kept["format"] = "uuid"
    return kept
