"""Declaring an output type: what is stored, what the provider gets, and what is refused."""

import enum
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, List, Literal, NamedTuple, NotRequired, Optional, TypeVar, assert_type  # noqa: UP035
from uuid import UUID

import pytest
from pydantic import AnyUrl, BaseModel, ConfigDict, Field, JsonValue, create_model
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from pgrun.errors import OutputInvalid, UsageError
from pgrun.run._storable import canonical_json
from pgrun.run.output import OutputSchema, known_type

T = TypeVar("T")
INTEGER = {"type": "integer"}


class CityFact(BaseModel):
    city: str = Field(..., description="Name of the city")
    country: str = Field(..., description="Country the city is in")
    population: str = Field(..., description="Approximate population")
    fun_fact: str = Field(..., description="An interesting fact about the city")


class CityFactsResponse(BaseModel):
    cities: List[CityFact] = Field(..., description="List of city facts")  # noqa: UP006


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
    def text(title: str, description: str) -> dict[str, str]:
        return {"description": description, "title": title, "type": "string"}

    schema = OutputSchema.of(CityFactsResponse)
    assert schema.name == "CityFactsResponse"
    assert schema.strict_schema == {
        "$defs": {
            "CityFact": {
                "properties": {
                    "city": text("City", "Name of the city"),
                    "country": text("Country", "Country the city is in"),
                    "population": text("Population", "Approximate population"),
                    "fun_fact": text("Fun Fact", "An interesting fact about the city"),
                },
                "required": ["city", "country", "population", "fun_fact"],
                "title": "CityFact",
                "type": "object",
                "additionalProperties": False,
            }
        },
        "properties": {
            "cities": {
                "description": "List of city facts",
                "items": {"$ref": "#/$defs/CityFact"},
                "title": "Cities",
                "type": "array",
            }
        },
        "required": ["cities"],
        "title": "CityFactsResponse",
        "type": "object",
        "additionalProperties": False,
    }


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
