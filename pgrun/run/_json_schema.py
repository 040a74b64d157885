"""Reading a JSON schema: where a reference leads, what a union offers, which types a value may have.

Shared by the two translations of a stored schema: into the provider's strict form (`_strict`) and into a validator
(`_json_check`). Both see only schemas that `_strict` accepted, so what is not understood here has been rejected there.
"""

from collections.abc import Callable
from typing import Any

from pgrun.errors import UsageError

Schema = dict[str, Any]

# Our own keywords in a stored schema. The name saves a bare worker from guessing; the order is kept because `jsonb` sorts keys,
# and a model fills in properties in the order in which it reads them: a `reasoning` field before the answer must stay there.
NAME = "name"
ORDER = "propertyOrdering"
# In place of a type that has no JSON schema, so that it can be reported with its path.
NO_SCHEMA = "noJsonSchema"

_PREFIX = "#/$defs/"
# Beside a `$ref` these change nothing.
_ANNOTATIONS = {"default", "examples", "deprecated", "readOnly", "writeOnly", "$comment", "$defs", NAME}
# Constraints that Pydantic writes beside a union although they speak of its members; some under its own names.
_SPELLING = {
    "gt": "exclusiveMinimum",
    "ge": "minimum",
    "lt": "exclusiveMaximum",
    "le": "maximum",
    "multiple_of": "multipleOf",
}
_CONSTRAINTS = {*_SPELLING.values(), "minLength", "maxLength", "pattern", "minItems", "maxItems", "uniqueItems"}


class Definitions:
    """The `$defs` of one schema."""

    def __init__(self, json_schema: Schema) -> None:
        self._definitions: Schema = json_schema.get("$defs", {})

    def target(self, ref: str) -> Schema:
        """Returns the definition that a `$ref` names."""
        try:
            return dict(self._definitions[definition_name(ref)])
        except KeyError:
            raise UsageError(f"the JSON schema refers to {ref}, which it does not define") from None

    def expanded(self, node: Schema) -> Schema:
        """Returns the node without `allOf`, and as a bare `$ref` or without one.

        A reference with keywords beside it is replaced by what it names, overlaid with them: strict mode allows nothing beside
        `$ref`. A recursive one would never end; it loses its siblings instead.
        """
        while True:
            if len(node.get("allOf", ())) == 1:
                node = {**node["allOf"][0], **_without(node, "allOf")}
            elif "$ref" not in node:
                return node
            elif _ANNOTATIONS.issuperset(_without(node, "$ref")) or self._is_recursive(node["$ref"]):
                return {"$ref": node["$ref"]}
            else:
                node = {**self.target(node["$ref"]), **_without(node, "$ref")}

    def followed(self, node: Schema) -> Schema:
        """Returns what the node says after its references are followed, however many there are in a row."""
        node = self.expanded(node)
        while "$ref" in node:
            if self._reaches_itself(node["$ref"], self._immediate_references):
                # A validator would chase it until the process dies.
                raise UsageError(f"the JSON schema's {node['$ref']} refers to nothing but itself")
            node = self.expanded(self.target(node["$ref"]))
        return node

    def _is_recursive(self, ref: str) -> bool:
        return self._reaches_itself(ref, references)

    def _reaches_itself(self, ref: str, step: Callable[[Schema], set[str]]) -> bool:
        reached = set[str]()
        waiting = step(self.target(ref))
        while waiting:
            reached |= waiting
            waiting = set().union(*(step(self.target(found)) for found in waiting)) - reached
        return ref in reached

    def _immediate_references(self, node: Schema) -> set[str]:
        """Returns the references met before any property or item: a value never gets smaller on the way."""
        node = self.expanded(node)
        return {node["$ref"]} if "$ref" in node else set().union(*map(self._immediate_references, variants(node)))


def definition_name(ref: str) -> str:
    """Returns ``"City"`` for ``"#/$defs/City"``, the only kind of reference that is understood."""
    if not ref.startswith(_PREFIX):
        raise UsageError(f"the JSON schema refers to {ref}; only references to #/$defs/… are supported")
    return ref.removeprefix(_PREFIX)


def references(node: Any) -> set[str]:
    """Returns every `$ref` within the node, not following them."""
    if isinstance(node, list):
        return set().union(*map(references, node))
    if not isinstance(node, dict):
        return set()
    own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set[str]()
    return own.union(*map(references, node.values()))


def is_wrapped(json_schema: Schema) -> bool:
    """Tells whether the answer travels as ``{"value": …}``: the provider wants an object, not a union, at the root."""
    return Definitions(json_schema).followed(json_schema).get("type") != "object"


def variants(node: Schema) -> list[Schema]:
    """Returns the members of a union, each with the constraints written beside the union; empty where there is none."""
    beside = {_SPELLING.get(key, key): value for key, value in node.items()}
    shared = {key: value for key, value in beside.items() if key in _CONSTRAINTS}
    return [{**shared, **variant} for variant in node.get("anyOf") or node.get("oneOf") or ()]


def allowed_values(node: Schema) -> list[Any] | None:
    """Returns the values that `const` or `enum` allows, or None where there is neither."""
    if "const" in node:
        return [node["const"]]
    return list(node["enum"]) if "enum" in node else None


def json_types(node: Schema) -> list[str]:
    """Returns the JSON types a value may have; empty for a schema that allows anything."""
    declared = node.get("type")
    if declared is not None:
        return list(declared) if isinstance(declared, list) else [declared]
    return list(dict.fromkeys(type_of(value) for value in allowed_values(node) or ()))


def type_of(value: Any) -> str:
    """Returns the JSON type of Python data."""
    names = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return names.get(type(value), "object")


def _without(node: Schema, key: str) -> Schema:
    return {name: value for name, value in node.items() if name != key}
