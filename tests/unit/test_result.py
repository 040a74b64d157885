"""The result of a task: by its annotation to JSON and back; what does not fit is never stored."""

import math
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json

from pgrun.errors import OutputInvalid
from pgrun.run._arguments import Result


class Report(BaseModel):
    model_config = ConfigDict(strict=True)
    when: datetime
    parts: set[int]


def of(annotation: Any) -> Result:
    def function() -> Any: ...

    function.__annotations__["return"] = annotation
    return Result("report", function)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (None, None),
        (Report, Report(when=datetime(2026, 1, 1, tzinfo=UTC), parts={1, 2})),
        (list[Report] | None, [Report(when=datetime(2026, 1, 1, tzinfo=UTC), parts=set())]),
        (dict[str, tuple[UUID, ...]], {"a": (UUID(int=1),)}),
        (Any, {"a": [1, "x", None]}),
        (str, "\\u0000 ü 😀"),
        (float | None, None),
    ],
)
def test_a_result_comes_back_as_it_was(annotation: Any, value: Any) -> None:
    result = of(annotation)
    assert result.load(from_json(result.dump(value))) == value


def test_a_function_without_annotation_returns_json_data() -> None:
    def function():  # type: ignore[no-untyped-def]
        ...

    result = Result("task", function)
    assert result.load(from_json(result.dump({"when": datetime(2026, 1, 1)}))) == {"when": "2026-01-01T00:00:00"}


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (int, "many", "valid integer"),
        (None, 1, "None"),
        (Report, {"when": 1}, "parts"),
        (Any, object(), "result: is of type object, which has no JSON form"),
        (str, "a\x00", "result: contains NUL"),
        (list[str], ["a", "\ud800"], r"result\[1\]: contains the lone surrogate"),
        (float, math.nan, "result: is nan, which is not a JSON number"),
        (dict[str, float | None], {"a": math.inf}, r"result\.a: is inf"),
        (bytes, b"\xff", "result: is of type bytes"),
    ],
)
def test_a_wrong_result_is_invalid(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(OutputInvalid, match=r"^report returned what its annotation does not allow:[^$]*" + message):
        of(annotation).dump(value)


def test_a_stored_result_that_does_not_fit_any_more_is_invalid() -> None:
    with pytest.raises(OutputInvalid, match=r"stored result of report"):
        of(int).load("many")
