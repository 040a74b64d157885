"""The arguments of a task: by its annotations to JSON and back, and refused where they could not come back."""

import json
import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NamedTuple, Optional
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, computed_field
from typing_extensions import TypedDict  # as pydantic asks for

from pgrun.errors import UsageError
from pgrun.run._arguments import Arguments
from pgrun.run._storable import find_unstorable

NOON = datetime(2026, 7, 1, 12, 0, 0, 123456, tzinfo=UTC)


class Shade(Enum):
    dark = "dark"


class Level(IntEnum):
    high = 3


class City(BaseModel):
    name: str
    founded: date | None = None


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    when: datetime
    tags: set[str]


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = Field(alias="Size")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def doubled(self) -> int:
        return 2 * self.size


@dataclass
class Box:
    items: list[City]
    lid: Optional["Box"] = None


class Row(TypedDict):
    n: int


class Point(NamedTuple):
    x: int
    y: int


def of(annotation: Any) -> Arguments:
    def function(value: Any) -> None: ...

    function.__annotations__["value"] = annotation
    return Arguments("task", function)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (str, "ü 😀 \\u0000"),
        (int, 2**80),
        (float, 1.5e300),
        (bool, True),
        (None, None),
        (bytes, b"text"),
        (Decimal, Decimal("1.10")),
        (datetime, NOON),
        (date, NOON.date()),
        (time, NOON.time()),
        (timedelta, timedelta(days=1, microseconds=1)),
        (UUID, UUID(int=7)),
        (Shade, Shade.dark),
        (Level, Level.high),
        (Literal["a", 1], 1),
        (set[int], {1, 2}),
        (frozenset[Shade], frozenset([Shade.dark])),
        (tuple[int, str], (1, "a")),
        (tuple[int, ...], (1, 2, 3)),
        (dict[int, list[UUID]], {1: [UUID(int=1)]}),
        (int | str, "1"),
        (City | Box | None, Box([City(name="Oslo")])),
        (Annotated[int, Field(ge=1)], 1),
        (City, City(name="Rome", founded=date(1, 4, 21))),
        (Strict, Strict(when=NOON, tags={"a"})),
        (Aliased, Aliased(Size=2)),
        (Box, Box([City(name="Rome")], lid=Box([]))),
        (Row, {"n": 1}),
        (Point, Point(1, 2)),
        (Any, {"a": [1, None, "x"]}),
        (float | None, None),
    ],
)
def test_a_value_comes_back_as_it_was(annotation: Any, value: Any) -> None:
    arguments = of(annotation)
    data = arguments.dump((value,), {})
    (back,) = arguments.load(data.decode()).values()
    assert back == value
    assert type(back) is type(value)


def test_what_stands_in_sql_may_use_aliases_too() -> None:
    assert of(Aliased).load('{"value": {"Size": 1}}') == of(Aliased).load('{"value": {"size": 1}}')


def greet(name: str, times: int = 2, *, loud: bool = False) -> str:
    return name * times + "!" * loud


def test_arguments_by_position_and_by_name_are_the_same() -> None:
    arguments = Arguments("greet", greet)
    expected = {"name": "a", "times": 3, "loud": True}
    assert json.loads(arguments.dump(("a", 3), {"loud": True})) == expected
    assert json.loads(arguments.dump((), expected)) == expected


def test_defaults_are_left_to_the_function() -> None:
    arguments = Arguments("greet", greet)
    assert arguments.dump(("a",), {}) == b'{"name":"a"}'
    assert greet(**arguments.load('{"name": "a"}')) == "aa"


def test_a_model_may_be_given_as_its_data() -> None:
    data = of(City).dump((), {"value": {"name": "Rome"}})
    assert of(City).load(data.decode()) == {"value": City(name="Rome")}


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        (("a", 1, True), {}, "greet: 3 arguments by position, it takes 2"),
        (("a",), {"name": "b"}, "greet: name given by position and by name"),
        (("a",), {"size": 1}, "greet: size: Extra inputs"),
        ((), {}, "greet: name: Field required"),
        ((1,), {}, "greet: name: Input should be a valid string"),
        ((1,), {"times": "x"}, "greet: name: .*; times: "),
    ],
)
def test_what_does_not_fit_is_refused_by_name(args: tuple[Any, ...], kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Arguments("greet", greet).dump(args, kwargs)


def test_what_is_stored_and_does_not_fit_any_more_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"greet: name: Field required; nom: Extra inputs"):
        Arguments("greet", greet).load('{"nom": "a"}')


async def send(when: datetime, city: City, text: Any = "", number: float | None = 0) -> None: ...


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"text": "a\x00"}, r"send\.text: contains NUL"),
        ({"text": ["ok", {"\x00": 1}]}, r"send\.text\[1\]: has the key"),
        ({"text": "\ud800"}, r"send\.text: contains the lone surrogate"),
        ({"city": City(name="\x00")}, r"send\.city\.name: contains NUL"),
        ({"city": City(name="\udfff")}, r"send\.city\.name: contains the lone surrogate"),
        ({"number": math.inf}, r"send\.number: is inf, which is not a JSON number"),
        ({"text": [1, math.nan]}, r"send\.text\[1\]: is nan, which is not a JSON number"),
        ({"text": b"\xff"}, r"send\.text: is of type bytes"),
        ({"text": object()}, r"send\.text: is of type object, which has no JSON form"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Arguments("send", send).dump((), {"when": NOON, "city": City(name="Rome"), **kwargs})


def test_data_that_contains_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(UsageError, match=r"send\.text"):
        Arguments("send", send).dump((NOON, City(name="Rome"), circle), {})


def test_text_that_only_looks_like_an_escape_is_not_refused() -> None:
    arguments = Arguments("send", send)
    data = arguments.dump((NOON, City(name="\\u0000"), "null"), {"number": None})
    assert arguments.load(data.decode())["city"].name == "\\u0000"


json_data = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(database=None, deadline=None)
@given(st.lists(st.text(), max_size=4), st.sets(st.datetimes()), st.dictionaries(st.uuids(), st.integers()), json_data)
def test_whatever_is_accepted_comes_back(
    texts: list[str], moments: set[datetime], numbers: dict[UUID, int], anything: Any
) -> None:
    def function(texts: list[str], moments: set[datetime], numbers: dict[UUID, int], anything: Any) -> None: ...

    arguments = Arguments("task", function)
    given = {"texts": texts, "moments": moments, "numbers": numbers, "anything": anything}
    if find_unstorable([texts, anything]) is None:
        assert arguments.load(arguments.dump((), given).decode()) == given
    else:
        with pytest.raises(UsageError, match=r"contains|has the key"):
            arguments.dump((), given)
