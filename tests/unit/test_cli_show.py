"""How rows look on a terminal, and as JSON."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from pgrun import RunOutput
from pgrun.cli._show import show_fields, show_json, show_table

RUN_ID = UUID("01900000-0000-7000-8000-000000000000")


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_table_has_a_line_per_row_under_the_names_of_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "Cities", "status": "completed", "hidden": 1}, {"name": "Quiz", "status": "error", "hidden": 2}]
    show_table(rows, ("status", "name"), nothing="no runs")
    assert printed(capsys) == [
        "status     name",
        "completed  Cities",
        "error      Quiz",
    ]


def test_columns_are_as_wide_as_their_widest_cell_and_lines_end_without_blanks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_table([{"a": "long text", "b": None}, {"a": "x", "b": "y"}], ("a", "b"), nothing="")
    assert printed(capsys) == ["a          b", "long text", "x          y"]


def test_without_rows_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    show_table([], ("a",), nothing="no runs")
    assert printed(capsys) == ["no runs"]


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, ""),
        ("", ""),
        (0, "0"),
        (0.25, "0.25"),
        (True, "True"),
        (RUN_ID, str(RUN_ID)),
        (timedelta(seconds=1.23456), "1.23 s"),
        (timedelta(milliseconds=4), "0.004 s"),
        (timedelta(seconds=99.96), "100 s"),
        (timedelta(minutes=20), "1200 s"),
        (timedelta(days=2, seconds=0.4), "172800 s"),
        (["default", "mail"], "default,mail"),
        ("two\nlines\t and  blanks", "two lines and blanks"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
    ],
)
def test_a_cell_is_one_short_line(capsys: pytest.CaptureFixture[str], value: Any, cell: str) -> None:
    show_table([{"a": value}], ("a",), nothing="")
    assert printed(capsys) == ["a", cell]


def test_moments_are_shown_in_local_time(capsys: pytest.CaptureFixture[str]) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    elsewhere = moment.astimezone(timezone(timedelta(hours=9)))
    show_table([{"a": moment}, {"a": elsewhere}], ("a",), nothing="")
    local = f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"
    assert printed(capsys) == ["a", local, local]


def test_one_row_is_shown_field_by_field_without_what_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    row: dict[str, Any] = {
        "run_id": RUN_ID,
        "error": None,
        "metadata": {},
        "tools": [],
        "attempt": 0,
        "input": {"city": "Zürich"},
    }
    show_fields(row)
    assert printed(capsys) == [
        f"run_id    {RUN_ID}",
        "attempt   0",
        "input     {",
        '            "city": "Zürich"',
        "          }",
    ]


def test_lines_of_a_long_text_stay_in_their_column(capsys: pytest.CaptureFixture[str]) -> None:
    show_fields({"output": "one\ntwo", "a": 1})
    assert printed(capsys) == ["output  one", "        two", "a       1"]


def test_json_is_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "run_id": RUN_ID,
        "created_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "waited": timedelta(seconds=1.5),
        "error": None,
        "output": {"city": "Zürich"},
        "queues": ["a"],
        "odd": object,
    }
    show_json([row])
    (line,) = printed(capsys)
    assert json.loads(line) == [
        {
            "run_id": str(RUN_ID),
            "created_at": "2026-01-02T03:04:05Z",
            "waited": 1.5,
            "error": None,
            "output": {"city": "Zürich"},
            "queues": ["a"],
            "odd": "<class 'object'>",
        }
    ]


def test_a_run_is_shown_as_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    show_json(RunOutput(run_id=str(RUN_ID), content={"city": "Tokyo"}))
    (line,) = printed(capsys)
    assert json.loads(line)["content"] == {"city": "Tokyo"}
