"""The subset of JSON Schema that the provider's strict mode accepts: `acceptance` and `tools` check every strict schema here.

A fake that accepts more than the provider lets a schema pass all tests and fail at the first paid call. The rules are
those the provider documents for structured outputs; each refusal is worded as it words it.
"""

from collections.abc import Iterator
from typing import Any

Context = tuple[str, ...]

_NOT_PERMITTED = (
    *("oneOf", "allOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas"),
    *("default", "prefixItems", "uniqueItems", "contains", "minContains", "maxContains", "unevaluatedItems"),
    *("patternProperties", "propertyNames", "minProperties", "maxProperties", "unevaluatedProperties"),
    *("minLength", "maxLength"),
)
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
_MAX_PROPERTIES = 5000
_MAX_ENUM_VALUES = 1000
_MAX_DEPTH = 10


class SchemaRejected(Exception):
    """Strict mode does not take this schema; the text names the place and the rule."""


def check_strict(schema: dict[str, Any]) -> None:
    """Check a whole schema.

    Raises:
        SchemaRejected: With the first rule it breaks.
    """
    if schema.get("type") != "object":
        raise SchemaRejected(
            f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'."
        )
    if "anyOf" in schema:
        raise _rejection((), "'anyOf' is not permitted.")
    nodes = list(_nodes(schema, ()))
    for context, node in nodes:
        _check_node(node, context, schema)
    _check_size([node for _, node in nodes])
    if _Depth(schema).of(schema) > _MAX_DEPTH:
        raise SchemaRejected(f"{_MAX_DEPTH} levels of nesting exceeded.")


def resolve(ref: str, root: dict[str, Any]) -> Any:
    """What a reference like ``#/$defs/City`` points at.

    Raises:
        KeyError: It points at nothing, or out of this schema.
    """
    if ref != "#" and not ref.startswith("#/"):
        raise KeyError(ref)
    found: Any = root
    for step in ref.split("/")[1:]:
        found = found[step.replace("~1", "/").replace("~0", "~")]
    return found


def _children(node: dict[str, Any]) -> Iterator[tuple[Context, Any]]:
    for keyword in ("properties", "$defs", "definitions"):
        for name, child in (node.get(keyword) or {}).items():
            yield (keyword, name), child
    if "items" in node:
        yield ("items",), node["items"]
    for number, child in enumerate(node.get("anyOf") or []):
        yield ("anyOf", str(number)), child


def _nodes(node: Any, context: Context) -> Iterator[tuple[Context, Any]]:
    yield context, node
    if isinstance(node, dict):
        for step, child in _children(node):
            yield from _nodes(child, (*context, *step))


def _check_node(node: Any, context: Context, root: dict[str, Any]) -> None:
    if not isinstance(node, dict) or not node.keys() & {"type", "anyOf", "$ref", "enum", "const"}:
        _check_keywords(node if isinstance(node, dict) else {}, context)
        raise _rejection(context, "schema must have a 'type' key.")
    if "$ref" in node:
        return _check_ref(node, context, root)
    _check_keywords(node, context)
    kinds = node.get("type", [])  # one name or a list of them: `in` finds the whole word in either
    if "object" in kinds:
        _check_object(node, context)
    if "array" in kinds and "items" not in node:
        raise _rejection(context, "array schema missing items.")


def _check_keywords(node: dict[str, Any], context: Context) -> None:
    for keyword in _NOT_PERMITTED:
        if keyword in node:
            raise _rejection(context, f"'{keyword}' is not permitted.")
    if node.get("format", "date") not in _FORMATS:
        raise _rejection(context, f"'{node['format']}' is not a valid format.")


def _check_ref(node: dict[str, Any], context: Context, root: dict[str, Any]) -> None:
    if siblings := node.keys() - {"$ref"}:
        raise _rejection(context, f"$ref cannot have keywords {{{', '.join(map(repr, sorted(siblings)))}}}.")
    try:
        resolve(node["$ref"], root)
    except (KeyError, TypeError):
        raise _rejection(context, "reference can only point to definitions of this schema.") from None


def _check_object(node: dict[str, Any], context: Context) -> None:
    if node.get("additionalProperties") is not False:
        raise _rejection(context, "'additionalProperties' is required to be supplied and to be false.")
    properties, required = node.get("properties", {}), node.get("required", [])
    rule = "'required' is required to be supplied and to be an array including every key in properties."
    for name in properties:
        if name not in required:
            raise _rejection(context, f"{rule} Missing '{name}'.")
    for name in required:
        if name not in properties:
            raise _rejection(context, f"{rule} Extra required key '{name}' supplied.")


def _check_size(nodes: list[dict[str, Any]]) -> None:
    if sum(len(node.get("properties", {})) for node in nodes) > _MAX_PROPERTIES:
        raise SchemaRejected(f"schema has more than {_MAX_PROPERTIES} object properties.")
    if sum(len(node.get("enum", [])) for node in nodes) > _MAX_ENUM_VALUES:
        raise SchemaRejected(f"schema has more than {_MAX_ENUM_VALUES} enum values.")


def _rejection(context: Context, rule: str) -> SchemaRejected:
    return SchemaRejected(f"In context={context}, {rule}")


class _Depth:
    """How many objects lie within each other, following references; a recursive one counts once."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._known: dict[str, int] = {}

    def of(self, node: dict[str, Any]) -> int:
        """Levels of objects from this node down, itself included."""
        if "$ref" in node:
            return self._of_ref(node["$ref"])
        inner = [self.of(child) for step, child in _children(node) if step[0] not in ("$defs", "definitions")]
        return max(inner, default=0) + ("properties" in node)

    def _of_ref(self, ref: str) -> int:
        if ref not in self._known:
            self._known[ref] = 0  # stands while the reference is being followed, and so ends a recursion
            self._known[ref] = self.of(resolve(ref, self._root))
        return self._known[ref]
