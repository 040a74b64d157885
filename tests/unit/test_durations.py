"""Durations as people write them, and the numbers that are none."""

import math

import pytest

from pgrun import Settings, UsageError
from pgrun._durations import CENTURY, is_duration, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0", 0),
        ("0.5", 0.5),
        ("90s", 90),
        ("30m", 1800),
        ("12h", 43_200),
        ("1.5h", 5400),
        ("7d", 604_800),
        ("36600d", CENTURY),
    ],
)
def test_a_duration_is_a_number_with_or_without_its_unit(text: str, seconds: float) -> None:
    assert seconds_of(text, option="--older-than") == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "d",
        "soon",
        "-1",
        "-7d",
        "7 d",
        " 7d",
        "7d\n",
        "7D",
        "7w",
        "7M",
        "1h30m",
        ".5h",
        "1.h",
        "1e9",
        "nan",
        "inf",
        "٣d",
        "36601d",
    ],
)
def test_anything_else_is_refused_by_the_name_of_the_option(text: str) -> None:
    with pytest.raises(UsageError, match=r"(?s)^--older-than .*such as 30m, 12h or 7d") as refused:
        seconds_of(text, option="--older-than")
    assert text in str(refused.value)


@pytest.mark.parametrize("value", [-1, -0.001, math.nan, math.inf, True, "7", None, CENTURY * 1.01])
def test_what_is_no_duration(value: object) -> None:
    assert not is_duration(value)


@pytest.mark.parametrize("retention", [None, 3600, 3600.0, 7 * 86_400])
def test_a_retention_lasts_at_least_an_hour_or_for_ever(retention: float | None) -> None:
    assert Settings(retention=retention).retention == retention


def test_each_status_may_have_a_retention_of_its_own() -> None:
    assert Settings(retention={"error": 7200}).retentions == {"error": 7200}
    assert (Settings().retentions, Settings(retention=3600).retentions) == ({}, {None: 3600})
    with pytest.raises(UsageError, match=r"^retention of error=60: seconds"):
        Settings(retention={"completed": 7200, "error": 60})
    with pytest.raises(UsageError, match="retention of running: there are completed, error and cancelled"):
        Settings(retention={"running": 7200})


@pytest.mark.parametrize("retention", [0, -1, 3599.9, math.nan, math.inf, "7d"])
def test_a_shorter_retention_is_refused(retention: float) -> None:
    with pytest.raises(UsageError, match=r"^retention=.*from 3600 \(an hour\) to a century, or None"):
        Settings(retention=retention)
    with pytest.raises(UsageError, match=r"^event_retention=.*from 3600 \(an hour\) to a century, or None"):
        Settings(event_retention=retention)


def test_by_default_nothing_is_deleted() -> None:
    assert Settings().retention is None
