"""Validity without the Python type: what the stored JSON schema alone accepts and refuses.

The properties at the end hold the check against Pydantic itself: it refuses nothing that a type can be, and it accepts nothing
that the type, in Pydantic's strict mode, would refuse.
"""

import copy
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal, NotRequired
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import UUID4, AnyUrl, Base64Bytes, BaseModel, ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

from pgrun.errors import OutputInvalid
from pgrun.run.output import OutputSchema

STRICT = ConfigDict(extra="forbid")


def accepts(schema: OutputSchema[Any], content: Any) -> bool:
    text = json.dumps({"value": content} if schema.is_wrapped else content)
    try:
        answer = schema.read(text)
    except OutputInvalid:
        return False
    assert answer.content == content
    return True


def plain(output_type: Any) -> OutputSchema[Any]:
    return OutputSchema.from_json(OutputSchema.of(output_type).json_schema)


class Level(IntEnum):
    low = 1
    high = 2


class Mood(Enum):
    good = "good"
    bad = "bad"


class Cat(BaseModel):
    model_config = STRICT
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    model_config = STRICT
    kind: Literal["dog", "puppy"]
    mood: Mood | None = None


class Tree(BaseModel):
    model_config = STRICT
    label: Annotated[str, Field(max_length=3)]
    branches: "list[Tree]" = []
    graft: "Tree | None" = Field(None, description="from elsewhere")


class Row(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    name: str
    size: NotRequired[float]


@dataclass
class Point:
    __pydantic_config__ = STRICT
    x: int
    y: int = 0


class Everything(BaseModel):
    model_config = STRICT
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    level: Level
    point: Point
    rows: Annotated[list[Row], Field(max_length=3)]
    day: date
    moment: datetime
    hour: time
    span: timedelta
    identity: UUID
    price: Annotated[Decimal, Field(ge=0, max_digits=8, decimal_places=2)]
    ratio: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
    either: int | str | None = Field(alias="Either")


PET = Annotated[Cat | Dog, Field(discriminator="kind")]


@pytest.mark.parametrize(
    ("output_type", "valid", "invalid"),
    [
        (int, [0, -(10**30)], [1.5, "1", True, None, [1]]),
        (float, [1, 1.5, -1e300], ["1", True, None, 10**400]),
        (bool, [True], [1, "true", None]),
        (str, ["", "x"], [1, None, ["x"]]),
        (None, [None], [0, "", False]),
        (list[int], [[], [1]], [{}, ["1"], "[]", None]),
        (set[float], [[], [1, 2]], [[1, 1], [1, 1.0], [2.5, 2.5]]),
        (list[set[str]], [[["a", "b"], ["a"]]], [[["a", "a"]]]),
        (Annotated[list[int], Field(min_length=1, max_length=2)], [[1], [1, 2]], [[], [1, 2, 3]]),
        (Annotated[str, Field(min_length=2, max_length=3)], ["ab", "😀😀"], ["a", "abcd"]),
        (Annotated[str, Field(pattern="^a+$")], ["aa"], ["b", "a\n", "ba"]),
        (Annotated[int, Field(gt=0, le=9, multiple_of=3)], [3, 9], [0, 4, 12]),
        (Annotated[float, Field(ge=0.5, lt=1)], [0.5, 0.75], [0.4, 1]),
        (Annotated[int | float, Field(gt=3)], [4, 3.5], [3, 2.5, "4"]),
        (Literal["a", 1, None], ["a", 1, None], ["b", 2, True, "1", 0, False, 1.0]),
        (Literal[True], [True], [1, False, "true"]),
        (Level, [1, 2], [3, "1", True, 1.0]),
        (Mood, ["good"], ["ugly", 1]),
        (int | str, [1, "1"], [1.5, True, None]),
        (int | None, [1, None], ["1", False]),
        (date, ["2026-02-28"], ["2026-02-30", "2026-2-1", "1700000000", "2026-02-28T00:00:00", 1700000000]),
        (datetime, ["2026-02-28T10:00:00Z", "2026-02-28T10:00:00"], ["1700000000", "2026-02-28", "yesterday", 0]),
        (time, ["10:00:00", "10:00:00+01:00"], ["25:00:00", "36000", 36000]),
        (timedelta, ["P1DT2H", "-PT1.5S"], ["1 day", "01:00:00", "PX", 5]),
        (UUID, [str(UUID(int=5))], ["x", 5]),
        (UUID4, [str(uuid4())], [str(UUID(int=5))]),
        (AnyUrl, ["https://example.org/a"], ["example", "", 1]),
        (IPv4Address, ["127.0.0.1"], ["127.0.0.256", 1]),
        (Base64Bytes, ["aGk="], ["a"]),
        (Decimal, ["1.50", "-.5", "1E+3", 1.5, 2], ["", "abc", "1,5", "NaN", "Infinity", "0x1", True, None]),
        (
            Annotated[Decimal, Field(gt=0, max_digits=4, decimal_places=1)],
            ["1.5", 123.5],
            ["-1", "0", 0, "1.55", "12345"],
        ),
        (Row, [{"name": "a"}, {"name": "a", "size": 1}], [{}, {"name": "a", "size": None}, {"name": "a", "b": 1}]),
        (Point, [{"x": 1}, {"x": 1, "y": 2}], [{"y": 1}, {"x": "1"}, [1]]),
        (
            PET,
            [{"kind": "cat", "lives": 1}, {"kind": "puppy"}],
            [{"kind": "cow"}, {"lives": 1}, {"kind": "dog", "lives": 1}],
        ),
        (
            Cat | Dog,
            [{"kind": "cat"}, {"kind": "dog", "mood": "bad"}],
            [{"kind": "cow"}, {"kind": "cat", "mood": "bad"}, 1],
        ),
        (
            Tree,
            [{"label": "a", "branches": [{"label": "b", "graft": {"label": "c"}}], "graft": None}],
            [{"label": "abcd"}, {"label": "a", "branches": [{"label": "b", "graft": {"label": 1}}]}, {"branches": []}],
        ),
        (list[Tree] | None, [None, [{"label": "a"}]], [[None], [{"label": "a", "x": 1}]]),
    ],
)
def test_the_stored_schema_alone_tells_valid_from_invalid(
    output_type: Any, valid: list[Any], invalid: list[Any]
) -> None:
    schema = plain(output_type)
    assert [content for content in valid if not accepts(schema, content)] == []
    assert [content for content in invalid if accepts(schema, content)] == []


def test_errors_in_a_union_name_the_member_that_was_meant() -> None:
    with pytest.raises(OutputInvalid) as tagged:
        plain(list[PET]).read('{"value": [{"kind": "cat", "lives": "nine"}]}')
    assert tagged.value.details["errors"] == [
        {"loc": ["value", 0, "cat", "lives"], "msg": "Input should be a valid integer"}
    ]
    with pytest.raises(OutputInvalid) as untagged:
        plain(Cat | int).read('{"value": {"kind": "cow"}}')
    assert [error["loc"] for error in untagged.value.details["errors"]] == [
        ["value", "Cat", "kind"],
        ["value", "integer"],
    ]


@pytest.mark.parametrize(
    ("json_schema", "valid", "invalid"),
    [
        ({"type": ["string", "null"], "maxLength": 2}, ["ab", None], ["abc", 1]),
        ({"type": "integer", "minimum": 0.5, "maximum": 2.0}, [1, 2], [0, 3, 1.5]),
        ({"type": "string", "format": "unheard-of"}, ["x"], [1]),
        ({"type": "string", "format": "email"}, ["a@example.org"], ["a", "a @b"]),
        ({"type": "string", "unheardOf": 1}, ["x"], [1]),
        ({"enum": ["a"]}, ["a"], ["b", 1]),
        ({"const": 1.5}, [1.5], [1, "1.5"]),
        ({"allOf": [{"$ref": "#/$defs/A"}], "description": "x", "$defs": {"A": {"type": "integer"}}}, [1], ["1"]),
        ({"$ref": "#/$defs/A", "maximum": 3, "$defs": {"A": {"type": "integer"}}}, [3], [4]),
        ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, [1, "a"], [None, 1.5]),
        ({"type": "object", "properties": {}}, [{}], [{"a": 1}, []]),
        ({"type": "object", "additionalProperties": False}, [{}], [{"a": 1}, []]),
        (
            {
                "oneOf": [{"$ref": "#/$defs/A"}, {"type": "object", "properties": {"n": {"const": 2}}}],
                "discriminator": {"propertyName": "n"},
                "$defs": {"A": {"type": "object", "properties": {"n": {"const": 1}}, "required": ["n"]}},
            },
            [{"n": 1}, {"n": 2}],
            [{"n": True}, {"n": "1"}, {"n": 3}],
        ),
    ],
)
def test_schemas_written_by_hand_are_enforced(json_schema: Any, valid: list[Any], invalid: list[Any]) -> None:
    schema = OutputSchema.from_json(json_schema)
    assert [content for content in valid if not accepts(schema, content)] == []
    assert [content for content in invalid if accepts(schema, content)] == []


TREES: st.SearchStrategy[Tree] = st.recursive(
    st.builds(Tree, label=st.text(max_size=3)),
    lambda trees: st.builds(
        Tree, label=st.text(max_size=3), branches=st.lists(trees, max_size=2), graft=st.none() | trees
    ),
    max_leaves=4,
)
ROWS = st.fixed_dictionaries({"name": st.text()}, optional={"size": st.floats(allow_nan=False, allow_infinity=False)})
PETS = st.builds(Cat) | st.builds(Dog, kind=st.sampled_from(["dog", "puppy"]), mood=st.none() | st.sampled_from(Mood))
EVERYTHING = st.builds(
    Everything,
    pet=PETS,
    level=st.sampled_from(Level),
    point=st.builds(Point, x=st.integers(), y=st.integers()),
    rows=st.lists(ROWS, max_size=3),
    day=st.dates(),
    moment=st.datetimes(timezones=st.none() | st.just(UTC)),
    hour=st.times(),
    span=st.timedeltas(min_value=timedelta(days=-9999), max_value=timedelta(days=9999)),
    identity=st.uuids(),
    price=st.decimals(min_value=0, max_value=9999, places=2),
    ratio=st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True),
    Either=st.none() | st.integers() | st.text(),
)
CASES = st.one_of(
    st.tuples(st.just(Everything), EVERYTHING),
    st.tuples(st.just(Tree), TREES),
    st.tuples(st.just(list[Tree]), st.lists(TREES, max_size=2)),
    st.tuples(st.just(Cat | Dog | int | None), PETS | st.integers() | st.none()),
    st.tuples(st.just(Literal["a", 1, None]), st.sampled_from(["a", 1, None])),
)
JSON_VALUES = st.one_of(
    *(st.none(), st.booleans(), st.integers(-2, 10**25), st.floats(allow_nan=False, allow_infinity=False)),
    *(st.text(max_size=4), st.sampled_from(["cat", "dog", "good", "1", "2026-02-28", "P1D", [], [1], {}, {"x": 1}])),
)
thorough = settings(
    database=None,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def dumped(output_type: Any, value: Any) -> Any:
    return json.loads(TypeAdapter(output_type).dump_json(value, by_alias=True, exclude_none=False))


def places(data: Any) -> list[tuple[Any, Any]]:
    """Lists every container in the data with each of its keys."""
    keys = list(data) if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else []
    return [place for key in keys for place in [(data, key), *places(data[key])]]


@thorough
@given(CASES)
def test_every_value_of_a_type_is_accepted(case: tuple[Any, Any]) -> None:
    output_type, value = case
    content = dumped(output_type, value)
    if "\\u0000" in json.dumps(content):  # replaced before it is judged
        return
    assert accepts(plain(output_type), content)
    assert accepts(OutputSchema.of(output_type), content)
    assert OutputSchema.of(output_type).load(content) == value


@thorough
@given(CASES, st.data())
def test_a_broken_value_is_accepted_just_when_the_type_accepts_it(case: tuple[Any, Any], data: st.DataObject) -> None:
    output_type, value = case
    root = {"value": copy.deepcopy(dumped(output_type, value))}
    container, key = data.draw(st.sampled_from(places(root)))
    if isinstance(container, dict) and container is not root:
        change = data.draw(st.sampled_from(["replace", "remove", "add"]))
    else:
        change = "replace"
    broken = None
    if change == "remove":
        del container[key]
    else:
        container[key if change == "replace" else "unheard of"] = broken = data.draw(JSON_VALUES)
    content = root["value"]
    if "\\u0000" in json.dumps(content):
        return
    accepted = accepts(plain(output_type), content)
    if not taken_by_pydantic_only(broken):
        assert accepted == type_accepts(output_type, content)
    elif accepted:
        assert type_accepts(output_type, content)


def taken_by_pydantic_only(value: Any) -> bool:
    """True and 1.0 for the literal 1, and seconds in a text for a moment: the JSON schema promises neither."""
    return isinstance(value, bool | float) or (isinstance(value, str) and value.strip("+-.").isdecimal())


def type_accepts(output_type: Any, content: Any) -> bool:
    try:
        TypeAdapter(output_type).validate_json(json.dumps(content), strict=True)
    except ValueError:
        return False
    return True
