"""Output types that the provider's strict mode cannot carry: they are refused at declaration, with the place and the reason."""

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import pytest
from pydantic import BaseModel, ConfigDict, JsonValue, create_model

from pgrun.errors import UsageError
from pgrun.run.output import OutputSchema

INTEGER = {"type": "integer"}


class Line(BaseModel):
    sku: str
    extra: dict[str, int]


class Invoice(BaseModel):
    lines: list[Line]


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    known: int


class Unfinished(BaseModel):
    other: "NotDefinedAnywhere"  # type: ignore[name-defined]  # noqa: F821


class Pair(NamedTuple):
    left: int
    right: int


@pytest.mark.parametrize(
    ("output_type", "message"),
    [
        (Invoice, "Invoice.lines[].extra: dict[str, ...] has no fixed keys; use a list of key/value objects"),
        (dict[str, int], "dict_str_int: dict[str, ...] has no fixed keys"),
        (list[Open], 'list_Open[]: extra="allow" leaves the keys open'),
        (create_model("M", a=(Any, ...)), "M.a: any value is allowed here"),
        (create_model("M", a=(list[object], ...)), "M.a[]: any value is allowed here"),
        (create_model("M", a=(list, ...)), "M.a[]: any value is allowed here"),
        (JsonValue, "any value is allowed here"),
        (create_model("M", a=(tuple[int, str], ...)), "M.a: a tuple has no names for its items"),
        (Pair, "Pair: a tuple has no names for its items"),
        (create_model("M", a=(bytes | None, None)), "M.a: bytes are no text"),
        (create_model("M", a=(Callable[[], int] | None, None)), "M.a: has no JSON schema"),
        (Callable[[], int], "has no JSON schema"),
        (Unfinished, "Unfinished"),
        ("CityFact", "'CityFact' is no type"),
        ({"type": "object"}, "is no type; for a JSON schema use OutputSchema.from_json"),
        (object(), "cannot be an output type"),
        (Literal["a\x00"], "contains NUL"),
        (create_model("M", **{f"f{n}": (int, ...) for n in range(5001)}), "5001 properties in all"),  # type: ignore[call-overload]
        (Literal[tuple(range(1001))], "1001 enum values in all"),
        (Literal[tuple(f"{n:0100}" for n in range(251))], "25100 characters in one enum of 251 values"),
        (create_model("M", **{"x" * 120_001: (int, ...)}), "120001 characters of property names"),  # type: ignore[call-overload]
    ],
)
def test_what_strict_mode_cannot_carry_is_refused_with_its_path(output_type: Any, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        OutputSchema.of(output_type)


def nested(levels: int) -> Any:
    if levels == 1:
        return create_model("Level1", leaf=(int, ...))
    return create_model(f"Level{levels}", inner=(nested(levels - 1), ...))


def test_ten_levels_of_objects_and_lists_are_allowed() -> None:
    list_of: Any = list
    OutputSchema.of(nested(10))
    with pytest.raises(UsageError, match="nested 11 levels deep"):
        OutputSchema.of(nested(11))
    OutputSchema.of(list[list[list[int]]])
    with pytest.raises(UsageError, match="nested 11 levels deep"):
        OutputSchema.of(create_model("Top", rows=(list_of[nested(9)], ...)))


def many_lists(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = INTEGER
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("json_schema", "message"),
    [
        ({"type": "object"}, "output: dict[str, ...] has no fixed keys"),
        (
            {"properties": {"a": {"not": {}}}, "type": "object"},
            "output.a: the provider's strict mode does not know 'not'",
        ),
        ({"allOf": [{"type": "string"}, {"minLength": 1}]}, "does not know 'allOf'"),
        ({"anyOf": [{"type": "string"}], "type": "string"}, "a union cannot have a type beside it"),
        ({"type": "text"}, "JSON has no type 'text'"),
        ({"$ref": "#/definitions/A"}, "only references to #/$defs/… are supported"),
        ({"$ref": "#/$defs/A"}, "refers to #/$defs/A, which it does not define"),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}, "refers to nothing but itself"),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}, INTEGER]}}},
            "refers to nothing but itself",
        ),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}},
            "nothing but itself",
        ),
        (many_lists(5000), "nested deeper than 200 levels"),
        ({"type": "object", "properties": ["a"]}, "is no JSON schema"),
        ({"type": "string", "minLength": "a"}, "is no JSON schema"),
        ({"type": "string", "format": []}, "is no JSON schema"),
        ([], "[] is no JSON schema"),
        ({"enum": [[1]]}, "[1] is no scalar"),
        ({"type": "array", "items": True}, "output[]: the schema True says nothing"),
        ({"type": "string", "pattern": "("}, "'(' is no regular expression"),
        ({"$ref": "#/$defs/A", "title": "x", "$defs": {"A": {"type": "string", "not": {}}}}, "does not know 'not'"),
    ],
)
def test_a_schema_written_by_hand_is_held_to_the_same_rules(json_schema: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        OutputSchema.from_json(json_schema, name="output")
