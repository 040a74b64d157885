"""What Postgres can store: replaced in answers, refused in input."""

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from pgrun.errors import UsageError
from pgrun.run._storable import canonical_json, find_unstorable, path_text, storable_json, storable_text, to_jsonable


class Shade(Enum):
    dark = "dark"


class Order(BaseModel):
    number: int
    when: datetime


@dataclass
class Box:
    items: list[Any]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\u0000", r"\ufffd"),
        (r"\\u0000", r"\\u0000"),
        (r"\\\u0000", r"\\\ufffd"),
        (r"\ud83d\ude00", r"\ud83d\ude00"),
        (r"\uD83D\uDE00", r"\uD83D\uDE00"),
        (r"\ud83d", r"\ufffd"),
        (r"\ude00\ud83d", r"\ufffd\ufffd"),
        (r"\ud83d\ud83d\ude00", r"\ufffd\ud83d\ude00"),
        (r"\ud83d\\ude00", r"\ufffd\\ude00"),
        (r"\ud83d\n", r"\ufffd\n"),
        (r"\u00e9 \ud7ff \ue000", r"\u00e9 \ud7ff \ue000"),
        ("a\x00\ud800z", "a\ufffd\ufffdz"),
        ("\\", "\\"),
    ],
)
def test_escapes_are_read_as_json_reads_them(text: str, expected: str) -> None:
    assert storable_json(text) == expected


def test_plain_text_keeps_what_only_looks_like_an_escape() -> None:
    assert storable_text("\\u0000 \x00 \ud800 😀") == "\\u0000 \ufffd \ufffd 😀"


@settings(database=None, deadline=None)
@given(
    st.text(st.characters(codec=None, exclude_categories=()) | st.sampled_from("\\\x00\ud800\udc00u0d8"), max_size=12)
)
def test_json_text_of_any_string_becomes_storable_and_changes_nothing_else(value: str) -> None:
    for ascii_only in (True, False):
        data = json.loads(storable_json(json.dumps(value, ensure_ascii=ascii_only)))
        data.encode()
        assert "\x00" not in data
        assert len(data) <= len(value)
        if find_unstorable(value) is None:
            assert data == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        ({"a": [1, 2.5, None, True]}, {"a": [1, 2.5, None, True]}),
        (Order(number=1, when=datetime(2026, 1, 2, tzinfo=UTC)), {"number": 1, "when": "2026-01-02T00:00:00Z"}),
        (Box([Shade.dark, (1, 2), Decimal("1.10")]), {"items": ["dark", [1, 2], "1.10"]}),
        ({1: uuid.UUID(int=1)}, {"1": "00000000-0000-0000-0000-000000000001"}),
    ],
)
def test_input_becomes_plain_json_data(value: Any, expected: Any) -> None:
    assert to_jsonable(value) == expected


def loop() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a\x00", r"input: contains NUL (\x00), which PostgreSQL cannot store"),
        ({"customer": {"name": "\x00"}}, r"input.customer.name: contains NUL (\x00), which PostgreSQL cannot store"),
        ({"a b": ["ok", "\ud800"]}, "input[\"a b\"][1]: contains the lone surrogate '\\ud800', which PostgreSQL"),
        ({"a": {"\x00": 1}}, "input.a: has the key '\\x00', which contains NUL"),
        ([1, float("nan")], "input[1]: is nan, which is not a JSON number"),
        (Box([float("inf")]), "input.items[0]: is inf"),
        ({"a": [object()]}, "input.a[0]: is of type object, which has no JSON form"),
        ({"a": lambda: 1}, "input.a: is of type function"),
        ({"a": b"\xff"}, "input.a: is of type bytes, which has no JSON form"),
        ({"a": 10**5000}, "input.a: is an integer of more than 4300 digits"),
        (loop(), "input[0][0][0]: nested deeper than 200 levels, or contains itself"),
    ],
)
def test_input_that_cannot_be_stored_is_refused_with_its_path(value: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        to_jsonable(value)
    assert message in str(caught.value)
    "".join(str(caught.value)).encode()


def test_the_search_also_serves_data_that_is_already_plain() -> None:
    assert find_unstorable({"a": [1, "x", None, 2.5, True]}) is None
    assert find_unstorable({1: 2}, name="answer") == "answer: has the key 1; JSON allows only text as keys"
    assert find_unstorable({"a": {1, 2}}) == "input.a: is of type set, which has no JSON form"


def test_locations_read_like_python() -> None:
    assert path_text(("cities", 0, "two words", "name")) == 'cities[0]["two words"].name'
    assert path_text((0, "a"), root="input") == "input[0].a"


def test_the_canonical_text_is_the_same_before_and_after_jsonb() -> None:
    assert canonical_json({"b": 1e3, "a": [0.5, -0.0]}) == canonical_json({"a": [0.5, 0], "b": 1000})
    assert canonical_json([True]) != canonical_json([1])
