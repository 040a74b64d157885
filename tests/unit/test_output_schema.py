"""Declaring an output type: what is stored, and what the provider gets."""

import enum
import json
import re
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NotRequired, Optional, TypeVar, assert_type
from uuid import UUID

import pytest
from pydantic import AnyUrl, BaseModel, ConfigDict, Field, create_model
from pydantic.dataclasses import dataclass as pydantic_dataclass
from support.city_facts import CITY_FACTS, CityFact, CityFactsResponse
from typing_extensions import TypedDict

from pgrun.errors import OutputInvalid, UsageError
from pgrun.run._storable import canonical_json
from pgrun.run.output import OutputSchema, known_type

T = TypeVar("T")


class Colour(enum.Enum):
    red = "red"
    green = "green"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(9, ge=0)


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str = Field(min_length=1, max_length=40, pattern="^[A-Z]", examples=["Rex"])


class Owner(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    second: Cat | None = Field(None, description="the other one")
    favourite: Colour = Field(Colour.red, description="of the owner")
    tags: set[str] = Field(default_factory=set, max_length=5)


class Node(BaseModel):
    name: str
    parent: "Node | None" = Field(None, description="above")
    twin: "Node" = Field(description="beside")
    children: "list[Node]" = []


class Row(TypedDict):
    name: str
    size: NotRequired[int]


@dataclass
class Point:
    x: int
    tags: list[str] = field(default_factory=list)


@pydantic_dataclass
class Spot:
    x: int


class Page(BaseModel, Generic[T]):
    items: list[T]


def strict(output_type: Any) -> dict[str, Any]:
    return OutputSchema.of(output_type).strict_schema


def value_schema(output_type: Any) -> Any:
    schema = strict(output_type)
    assert (schema["type"], schema["required"], schema["additionalProperties"]) == ("object", ["value"], False)
    return schema["properties"]["value"]


def test_the_seed_program_sends_this_schema() -> None:
    schema = OutputSchema.of(CityFactsResponse)
    assert schema.name == "CityFactsResponse"
    assert schema.strict_schema == CITY_FACTS


def test_what_strict_mode_does_not_know_is_rewritten_or_dropped() -> None:
    schema = strict(Owner)
    properties = schema["properties"]
    assert schema["required"] == ["pet", "second", "favourite", "tags"]
    assert properties["pet"]["anyOf"] == [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]
    assert "discriminator" not in properties["pet"]
    assert properties["second"]["anyOf"] == [{"$ref": "#/$defs/Cat"}, {"type": "null"}]
    assert properties["favourite"] == {
        "title": "Colour",
        "description": "of the owner",
        "type": "string",
        "enum": ["red", "green"],
    }
    assert properties["tags"] == {"title": "Tags", "type": "array", "items": {"type": "string"}, "maxItems": 5}
    dog = schema["$defs"]["Dog"]["properties"]["name"]
    assert dog == {"title": "Name", "type": "string", "pattern": "^[A-Z]"}
    assert schema["$defs"]["Cat"]["properties"]["lives"] == {"title": "Lives", "type": "integer", "minimum": 0}


def test_a_recursive_root_becomes_an_object_and_its_references_lose_their_siblings() -> None:
    schema = strict(Node)
    assert schema["type"] == "object"
    assert schema["properties"]["twin"] == {"$ref": "#/$defs/Node"}
    assert schema["$defs"]["Node"]["properties"] == schema["properties"]
    assert value_schema(list[Node]) == {"type": "array", "items": {"$ref": "#/$defs/Node"}}


@pytest.mark.parametrize(
    ("output_type", "expected"),
    [
        (str, {"type": "string"}),
        (bool, {"type": "boolean"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (date, {"type": "string", "format": "date"}),
        (datetime, {"type": "string", "format": "date-time"}),
        (timedelta, {"type": "string", "format": "duration"}),
        (UUID, {"type": "string", "format": "uuid"}),
        (AnyUrl, {"type": "string"}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal["a"], {"type": "string", "const": "a"}),
        (Literal["a", 1, None], {"type": ["string", "integer", "null"], "enum": ["a", 1, None]}),
        (
            Annotated[int | float, Field(gt=3)],
            {"anyOf": [{"type": "integer", "exclusiveMinimum": 3}, {"type": "number", "exclusiveMinimum": 3}]},
        ),
    ],
)
def test_what_is_no_object_travels_as_value(output_type: Any, expected: dict[str, Any]) -> None:
    assert value_schema(output_type) == expected


def test_a_pattern_with_lookaround_is_ours_to_enforce() -> None:
    lookahead = create_model(
        "M", __config__=ConfigDict(regex_engine="python-re"), a=Annotated[str, Field(pattern="^(?!x)")]
    )
    assert strict(lookahead)["properties"]["a"] == {"title": "A", "type": "string"}
    with pytest.raises(OutputInvalid):
        OutputSchema.from_json(OutputSchema.of(lookahead).json_schema).read('{"a": "xy"}')
    with pytest.raises(UsageError, match="look-ahead"):
        OutputSchema.of(Annotated[str, Field(pattern="^(?!x)")])


def test_a_decimal_is_a_number_or_a_text_with_a_pattern_the_provider_can_read() -> None:
    number, text = value_schema(Annotated[Decimal, Field(ge=0, max_digits=5)])["anyOf"]
    assert number == {"type": "number", "minimum": 0.0}
    assert set(text) == {"type", "pattern"}
    assert "(?" not in text["pattern"]
    for written in ("1", "-1.50", ".5", "1E+3"):
        assert re.search(text["pattern"], written)


@pytest.mark.parametrize(
    ("output_type", "name"),
    [
        (list[CityFact], "list_CityFact"),
        (Page[CityFact], "Page_CityFact"),
        (Optional[CityFact], "CityFact_or_None"),  # noqa: UP045
        (Cat | Dog, "Cat_or_Dog"),
        (Annotated[int, Field(gt=0)], "int"),
        (create_model("Größe " + "x" * 80, a=int), "Gr_e_" + "x" * 59),
        (create_model("_Private__v2", a=int), "_Private__v2"),
        (Row, "Row"),
        (Point, "Point"),
        (Spot, "Spot"),
    ],
)
def test_names_are_those_of_the_type_in_letters_the_provider_takes(output_type: Any, name: str) -> None:
    schema = OutputSchema.of(output_type)
    assert schema.name == name
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", schema.name)


@pytest.mark.parametrize("output_type", [CityFactsResponse, Owner, Node, list[Owner], Decimal, int | None, Row, Point])
def test_the_stored_schema_alone_gives_the_same_request(output_type: Any) -> None:
    declared = OutputSchema.of(output_type)
    as_jsonb_returns_it = json.loads(canonical_json(declared.json_schema))
    bare = OutputSchema.from_json(as_jsonb_returns_it)
    assert (bare.name, bare.fingerprint, bare.is_wrapped) == (declared.name, declared.fingerprint, declared.is_wrapped)
    assert bare.json_schema == declared.json_schema
    assert bare.strict_schema == declared.strict_schema
    assert list(bare.strict_schema["properties"]) == list(declared.strict_schema["properties"])


def test_properties_keep_their_order_though_jsonb_sorts_keys() -> None:
    model = create_model("Verdict", reasoning=(str, ...), answer=(str, "none"), aside=(str, ...))
    stored = json.loads(canonical_json(OutputSchema.of(model).json_schema))
    assert list(stored["properties"]) == ["answer", "aside", "reasoning"]
    assert list(OutputSchema.from_json(stored).strict_schema["properties"]) == ["reasoning", "answer", "aside"]


def test_declaring_twice_is_one_declaration() -> None:
    assert OutputSchema.of(Owner) is OutputSchema.of(Owner)
    assert OutputSchema.of(list[Owner]) is OutputSchema.of(list[Owner])
    assert OutputSchema.of(int | str).name == "int_or_str"
    assert OutputSchema.of(str | int).name == "str_or_int"
    unhashable = Annotated[int, {"a": 1}]
    assert OutputSchema.of(unhashable).name == "int"


def test_a_stored_schema_finds_the_type_that_this_process_declared() -> None:
    declared = OutputSchema.of(Owner)
    assert known_type(json.loads(canonical_json(declared.json_schema))) is declared
    assert known_type(OutputSchema.from_json({"type": "string"}, name="never_declared").json_schema) is None


def test_types_are_known_to_the_checker() -> None:
    assert_type(OutputSchema.of(CityFact), OutputSchema[CityFact])
    assert_type(OutputSchema.of(list[int]), OutputSchema[list[int]])
    assert_type(OutputSchema.of(int | None), OutputSchema[Any])
    assert_type(
        OutputSchema.of(CityFact).read('{"city": "", "country": "", "population": "", "fun_fact": ""}').value, CityFact
    )
    assert_type(OutputSchema.of(Point).load({"x": 1}), Point)


def test_the_text_of_a_schema_tells_what_it_is() -> None:
    assert repr(OutputSchema.of(Owner)) == "OutputSchema(Owner, typed)"
    assert repr(OutputSchema.from_json({"type": "string"})) == "OutputSchema(output, plain JSON)"
