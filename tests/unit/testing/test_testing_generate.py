"""Made-up answers are valid for the schema asked for, always the same, and read pleasantly."""

import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Optional
from uuid import UUID

import pytest
from openai.lib._pydantic import to_strict_json_schema
from pydantic import AnyUrl, BaseModel, ConfigDict, Field, RootModel, TypeAdapter

from pgrun.testing.generate import generate, misshape
from pgrun.testing.pattern import text_for_pattern
from pgrun.testing.wording import CannotGenerate, label_of, made_up_sentence, names_in, singular


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Texts(BaseModel):
    plain: str
    short: str = Field(max_length=4)
    long: str = Field(min_length=50)
    exact: str = Field(min_length=5, max_length=5)
    colour: Colour
    choice: Literal["a", "b", 3]
    only: Literal["x"]
    moment: datetime
    day: date
    hour: time
    duration: timedelta
    id: UUID
    link: AnyUrl
    code: str = Field(pattern=r"^[A-Z]{2,3}-\d{4}$")
    zip: str = Field(pattern=r"^\d{5}(-\d{4})?$")
    word: str = Field(pattern=r"^\w+$", min_length=8)


class Numbers(BaseModel):
    count: int
    positive: int = Field(gt=0)
    percent: int = Field(ge=0, le=100)
    negative: int = Field(lt=-3)
    even: int = Field(multiple_of=2, ge=3)
    zero: int = Field(multiple_of=10, le=5)
    price: float
    probability: float = Field(gt=0, lt=1)
    cents: float = Field(multiple_of=0.01, ge=0.5)
    below: float = Field(lt=0)
    above: float = Field(gt=1e6)
    money: Decimal
    yes: bool
    nothing: None


class Lists(BaseModel):
    usual: list[str]
    at_most_one: list[int] = Field(max_length=1)
    at_least_four: list[float] = Field(min_length=4)
    none_at_all: list[int] = Field(max_length=0)
    nested: list[list[Colour]]
    pair: tuple[int, str]
    unique: set[Colour] = Field(min_length=2)
    bounded: set[Annotated[float, Field(ge=0, le=1)]] = Field(min_length=3)
    mapping: dict[str, int]


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str]


class Choices(BaseModel):
    maybe: str | None
    optional: Optional[Cat] = None  # noqa: UP045
    either: int | str
    pet: Cat | Dog
    told_apart: Annotated[Cat | Dog, Field(discriminator="kind")]
    described: Cat = Field(description="A reference with words beside it")


class Tree(BaseModel):
    name: str
    children: list["Tree"]


class Link(BaseModel):
    value: int
    next: Optional["Link"]


class Expression(BaseModel):
    left: "Expression | Term"
    right: "Expression | Term | None"


class Term(BaseModel):
    factors: list["Expression | Term"]
    number: float


class Forest(RootModel[list[Tree]]):
    pass


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    aliased: str = Field(alias="theAlias")


MODELS = [Texts, Numbers, Lists, Choices, Tree, Link, Expression, Forest, Strict]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("strict", [True, False])
def test_valid_for_a_model(model: type[BaseModel], strict: bool) -> None:
    schema = to_strict_json_schema(model) if strict else model.model_json_schema()
    made = generate(schema, "About Rome, Oslo and Lima")

    model.model_validate_json(json.dumps(made))
    assert generate(schema, "About Rome, Oslo and Lima") == made


@pytest.mark.parametrize(
    "kind",
    [int, list[int], str | None, dict[str, int], Literal["x", None], Any, bool, list[Cat | Dog], tuple[int, ...]],
)
def test_valid_for_any_type(kind: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    adapter.validate_json(json.dumps(generate(adapter.json_schema())))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": ["string", "null"], "title": "Some Name"}, "Some name 1"),
        ({"type": "null"}, None),
        ({"const": {"a": 1}}, {"a": 1}),
        ({"enum": [None, 1]}, None),
        ({"allOf": [{"type": "integer"}], "minimum": 7}, 7),
        ({"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}]}, {"a": 1, "b": 2}),
        ({"$ref": "#/definitions/a~1b", "definitions": {"a/b": {"const": 1}}}, 1),
        ({"items": {"const": 1}, "maxItems": 1}, [1]),
        ({"properties": {"self": {"$ref": "#"}}}, {"self": {}}),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, "Answer 1"),
        ({"type": "integer", "multipleOf": 1.5}, 3),
        ({"type": "array", "prefixItems": [{"const": 1}], "items": False}, [1]),
        ({"type": "array", "items": {"const": 1}, "minItems": 1, "uniqueItems": True}, [1]),
        ({}, "Answer 1"),
    ],
)
def test_forms_of_schema(schema: dict[str, Any], value: Any) -> None:
    assert generate(schema) == value


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 5, "maximum": 4},
        {"type": "number", "minimum": 5, "maximum": 4},
        {"type": "string", "pattern": r"^(?=.*\d)[a-z]$"},
        {"type": "string", "pattern": "("},
        {"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"]}}},
        {"type": "array", "minItems": 1, "items": False},
    ],
)
def test_what_nothing_is_valid_for_is_told(schema: dict[str, Any]) -> None:
    with pytest.raises(CannotGenerate):
        generate(schema)


class CityFact(BaseModel):
    city: str
    country: str
    fun_fact: str


class CityFacts(BaseModel):
    cities: list[CityFact]


def test_what_the_prompt_names_becomes_the_subject() -> None:
    made = generate(to_strict_json_schema(CityFacts), "Give me facts about Tokyo, Paris, and New York.")

    assert made["cities"] == [
        {"city": "Tokyo", "country": "Country 1", "fun_fact": "Fun fact 1"},
        {"city": "Paris", "country": "Country 2", "fun_fact": "Fun fact 2"},
        {"city": "New York", "country": "Country 3", "fun_fact": "Fun fact 3"},
    ]


def test_without_names_a_list_has_two_items() -> None:
    assert [fact["city"] for fact in generate(to_strict_json_schema(CityFacts), "Give me facts.")["cities"]] == [
        "City 1",
        "City 2",
    ]


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("Facts about Tokyo, Paris, and New York.", ["Tokyo", "Paris", "New York"]),
        ("Compare Rio de Janeiro (and Östersund). Thanks! Please do as I say", ["Rio de Janeiro", "Östersund"]),
        ("Cities:\n- Rome\n- Oslo\n- Rome", ["Rome", "Oslo"]),
        ("What is the answer?", []),
        ("", []),
    ],
)
def test_names_in_a_prompt(prompt: str, names: list[str]) -> None:
    assert names_in(prompt) == names


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\d{3}$",
        r"[a-f0-9]{8}",
        r"^(yes|no)$",
        r"^[^abc]+$",
        r"^\S+@\S+\.\S+$",
        r"^(?:v)?\d+\.\d+(\.\d+)?$",
        r"^.{3,}$",
        r"^[-+]?\d*\.?\d+$",
        r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$",
        r"^[\W\D]$",
        r"^[äöü]$",
        "",
    ],
)
def test_patterns(pattern: str) -> None:
    first, second = (text_for_pattern(pattern, 0, 100, count) for count in (1, 2))

    TypeAdapter(Annotated[str, Field(pattern=pattern)] if "(?!" not in pattern else str).validate_python(first)
    assert first is not None
    assert second is not None


def test_misshaped_values_keep_their_keys_only() -> None:
    assert misshape({"a": 1, "b": {"c": 2}, "d": []}) == {
        "a": {"unexpected": True},
        "b": "unexpected",
        "d": {"unexpected": True},
    }
    assert misshape([1]) == {"unexpected": True}
    assert misshape({}) == {"unexpected": True}


def test_words() -> None:
    assert label_of({"title": "Home URL"}, "x") == "Home URL"
    assert label_of({}, "fun_fact") == "Fun fact"
    assert [singular(label) for label in ("Cities", "Tags", "Address", "Fish")] == ["City", "Tag", "Address", "Fish"]
    assert made_up_sentence("") == "A made-up answer."
    assert made_up_sentence("x" * 500) == f"A made-up answer to: {'x' * 120}…"
