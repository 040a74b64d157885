"""A made-up value that is valid for a JSON schema: `makeup` asks here when no test has said what to answer.

The same schema and prompt always give the same value. Values are counted per property, so that lists read
"Fun fact 1", "Fun fact 2"; and what the prompt names becomes the subject of the list it asks for: "facts about Tokyo and
Paris" gives one object whose first text is "Tokyo" and one whose first text is "Paris".
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pgrun.testing.numbers import made_up_integer, made_up_number
from pgrun.testing.strictness import resolve
from pgrun.testing.wording import CannotGenerate, label_of, made_up_text, names_in, singular

Schema = dict[str, Any]

_USUAL_LENGTH = 2
# Inside this many references a choice goes to what ends soonest, or mutually recursive types would grow like a tree.
_DEEP = 3


@dataclass(frozen=True)
class _Place:
    """Where in the answer a value goes.

    Attributes:
        label: What to call it.
        refs: The references that are open around it; one of them again would never end.
        subject: What the object here is about, if the prompt names it.
        depth: 0 for the answer itself, 1 for its properties.
    """

    label: str = "Answer"
    refs: tuple[str, ...] = ()
    subject: str | None = None
    depth: int = 0


def generate(schema: Schema, prompt: str = "") -> Any:
    """Make up a JSON value that is valid for `schema`.

    Raises:
        CannotGenerate: No value is valid, or a pattern is too intricate to make one up.
    """
    return _Generator(schema, names_in(prompt)).value(schema, _Place())


def misshape(value: Any) -> Any:
    """The same JSON value with the right keys and everything in them of the wrong type."""
    if isinstance(value, dict) and value:
        return {key: _unlike(item) for key, item in value.items()}
    return _unlike(value)


def _unlike(value: Any) -> Any:
    return "unexpected" if isinstance(value, dict) and value else {"unexpected": True}


class _Generator:
    def __init__(self, root: Schema, subjects: list[str]) -> None:
        self._root = root
        self._subjects = subjects
        self._counts: Counter[str] = Counter()
        self._makers: dict[str, Callable[[Schema, _Place], Any]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": lambda node, place: made_up_integer(node, self._count(place)),
            "number": lambda node, place: made_up_number(node, self._count(place)),
            "boolean": lambda node, place: self._count(place) % 2 == 1,
            "null": lambda node, place: None,
        }

    def value(self, node: Schema | bool, place: _Place) -> Any:
        """A value for one node of the schema; each form of node has its own way."""
        if isinstance(node, bool):
            node = _whatever_or_nothing(node)
        if "$ref" in node:
            return self._referenced(node, place)
        if "const" in node:
            return node["const"]
        if "enum" in node:
            return node["enum"][(self._count(place) - 1) % len(node["enum"])]
        for keyword in ("anyOf", "oneOf"):
            if keyword in node:
                return self._one_of(node, keyword, place)
        if "allOf" in node:
            return self.value(_merged(_without(node, "allOf"), *node["allOf"]), place)
        return self._makers[_type_of(node)](node, replace(place, label=label_of(node, place.label)))

    def _count(self, place: _Place) -> int:
        self._counts[place.label] += 1
        return self._counts[place.label]

    def _referenced(self, node: Schema, place: _Place) -> Any:
        ref = node["$ref"]
        if ref in place.refs:
            raise CannotGenerate(f"{ref} contains itself")
        target = _merged(resolve(ref, self._root), _without(node, "$ref"))
        return self.value(target, replace(place, refs=(*place.refs, ref)))

    def _one_of(self, node: Schema, keyword: str, place: _Place) -> Any:
        options = [_merged(_without(node, keyword), option) for option in node[keyword]]
        # A value says more than null, so null comes last; deep inside, a reference comes after even that.
        options.sort(key=lambda option: (len(place.refs) >= _DEEP and "$ref" in option, option.get("type") == "null"))
        for option in options:
            try:
                return self.value(option, place)
            except CannotGenerate as error:
                reason = error
        raise reason

    def _object(self, node: Schema, place: _Place) -> Any:
        made: dict[str, Any] = {}
        required = node.get("required", [])
        subject = place.subject
        for name, child in node.get("properties", {}).items():
            inner = replace(place, label=name, subject=None, depth=place.depth + 1)
            if subject is not None and _can_be(subject, child):
                made[name], subject = subject, None
                continue
            try:
                made[name] = self.value(child, inner)
            except CannotGenerate:
                if name in required:
                    raise
        return made

    def _array(self, node: Schema, place: _Place) -> Any:
        subjects = self._subjects if place.depth <= 1 else []
        made = [self.value(child, place) for child in node.get("prefixItems", [])]
        child, least = node.get("items", True), node.get("minItems", 0)
        wanted = self._length(node, place, len(subjects) or _USUAL_LENGTH)
        for number in range(len(made), wanted):
            subject = subjects[number] if number < len(subjects) else None
            inner = replace(place, label=singular(place.label), subject=subject, depth=place.depth + 1)
            try:
                made.append(self.value(child, inner))
            except CannotGenerate:
                if len(made) < least:
                    raise
                break
        return [item for at, item in enumerate(made) if not node.get("uniqueItems") or item not in made[:at]]

    def _length(self, node: Schema, place: _Place, usual: int) -> int:
        least = node.get("minItems", 0)
        if len(place.refs) >= _DEEP:
            return int(least)
        return int(min(max(least, usual), node.get("maxItems", usual + least)))

    def _string(self, node: Schema, place: _Place) -> str:
        return made_up_text(node, place.label, self._count(place))


def _whatever_or_nothing(node: bool) -> Schema:
    if not node:
        raise CannotGenerate("the schema allows no value here")
    return {}


def _type_of(node: Schema) -> str:
    kinds = node.get("type")
    if isinstance(kinds, list):
        kinds = next((kind for kind in kinds if kind != "null"), "null")
    if isinstance(kinds, str):
        return kinds
    return "object" if "properties" in node else "array" if "items" in node else "string"


def _can_be(subject: str, node: Schema | bool) -> bool:
    plain = isinstance(node, dict) and not node.keys() & {"enum", "const", "pattern", "format", "anyOf", "$ref"}
    if not plain or not isinstance(node, dict) or _type_of(node) != "string":
        return False
    return bool(node.get("minLength", 0) <= len(subject) <= node.get("maxLength", len(subject)))


def _merged(*nodes: Schema) -> Schema:
    merged: Schema = {}
    for node in nodes:
        properties = {**merged.get("properties", {}), **node.get("properties", {})}
        required = [*merged.get("required", []), *node.get("required", [])]
        merged = {**merged, **node}
        merged |= {"properties": properties} if properties else {}
        merged |= {"required": required} if required else {}
    return merged


def _without(node: Schema, keyword: str) -> Schema:
    return {key: value for key, value in node.items() if key != keyword}
