"""How large a strict schema may be, checked when a type is declared rather than by the first model call.

The numbers are those of OpenAI's guide to structured outputs, section "Supported schemas".
"""

from collections.abc import Iterator
from typing import Any

from pgrun.errors import UsageError
from pgrun.run._json_schema import Definitions, Schema, allowed_values

MAX_PROPERTIES = 5_000
MAX_DEPTH = 10
MAX_ENUM_VALUES = 1_000
MAX_NAME_CHARACTERS = 120_000
# One enum of more than 250 texts may hold this many characters.
LONG_ENUM_VALUES = 250
MAX_LONG_ENUM_CHARACTERS = 15_000


def check(schema: Schema, *, name: str) -> None:
    """Raises UsageError where the finished strict schema goes beyond what the provider documents."""
    nodes = list(_nodes(schema))
    properties = [key for node in nodes for key in node.get("properties", ())]
    enums = [node["enum"] for node in nodes if "enum" in node]
    values = [value for node in nodes for value in allowed_values(node) or ()]
    texts = [*properties, *schema.get("$defs", ()), *(value for value in values if isinstance(value, str))]
    _at_most(MAX_PROPERTIES, len(properties), f"{name}: {{}} properties in all")
    _at_most(MAX_DEPTH, _Depth(schema).of(schema), f"{name}: objects and lists nested {{}} levels deep")
    _at_most(MAX_ENUM_VALUES, sum(map(len, enums)), f"{name}: {{}} enum values in all")
    _at_most(MAX_NAME_CHARACTERS, sum(map(len, texts)), f"{name}: {{}} characters of property names and enum values")
    for enum in enums:
        if len(enum) > LONG_ENUM_VALUES:
            characters = sum(len(value) for value in enum if isinstance(value, str))
            _at_most(MAX_LONG_ENUM_CHARACTERS, characters, f"{name}: {{}} characters in one enum of {len(enum)} values")


def _at_most(limit: int, count: int, what: str) -> None:
    if count > limit:
        raise UsageError(f"{what.format(count)}; the provider's strict mode allows {limit}")


def _nodes(node: Any) -> Iterator[Schema]:
    """Walks every schema within a strict schema, definitions once each."""
    yield node
    for child in _children(node):
        yield from _nodes(child)
    for child in node.get("$defs", {}).values():
        yield from _nodes(child)


def _children(node: Schema) -> list[Schema]:
    items = [node["items"]] if "items" in node else []
    return [*node.get("properties", {}).values(), *items, *node.get("anyOf", ())]


class _Depth:
    """Counts levels as the API was seen to do: each object and each list is one, a union is none.

    References are followed; a recursive one adds nothing, for recursion is allowed.
    """

    def __init__(self, schema: Schema) -> None:
        self._definitions = Definitions(schema)
        self._known: dict[str, int] = {}

    def of(self, node: Schema) -> int:
        if "$ref" in node:
            return self._of_reference(node["$ref"])
        below = max(map(self.of, _children(node)), default=0)
        return below + (1 if "properties" in node or "items" in node else 0)

    def _of_reference(self, ref: str) -> int:
        if ref not in self._known:
            self._known[ref] = 0
            self._known[ref] = self.of(self._definitions.target(ref))
        return self._known[ref]
