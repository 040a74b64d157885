"""RunOutput: what a caller holds in hand."""

import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ValidationError

from pgrun import RunCancelled, RunEvent, RunFailed, RunMetrics, RunOutput, RunStatus, UsageError
from pgrun.run.base import output_from_row

RUN_ID = "01900000-0000-7000-8000-000000000000"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class City(BaseModel):
    name: str


def row(**columns: Any) -> dict[str, Any]:
    """A row of jobs as the database layer returns it."""
    return {
        "run_id": UUID(RUN_ID),
        "session_id": "s1",
        "name": "Cities",
        "status": "completed",
        "content_type": "City",
        "input": "Tokyo?",
        "error": None,
        "attempt": 2,
        "metrics": {"input_tokens": 7, "duration": 1.5},
        "tools": None,
        "requirements": None,
        "created_at": NOW,
        "started_at": NOW,
        "finished_at": None,
        "parent_run_id": None,
        "metadata": {"team": "a"},
        "a_column_of_a_newer_version": 1,
        **columns,
    }


class Handle:
    """Answers every wait with the same run."""

    def __init__(self, ended: RunOutput[Any]) -> None:
        self.ended = ended
        self.waits: list[tuple[str, float | None]] = []

    async def wait(self, run_id: str, timeout: float | None) -> RunOutput[Any]:
        self.waits.append((run_id, timeout))
        return self.ended

    async def events(self, run_id: str, after: int) -> AsyncGenerator[RunEvent, None]:
        for seq in range(after + 1, 4):
            yield RunEvent(run_id=run_id, seq=seq, kind="text", data={"text": str(seq)}, created_at=datetime.now(UTC))


def test_it_has_the_fields_that_programs_rely_on() -> None:
    assert [*RunOutput.model_fields] == [
        *("run_id", "session_id", "agent_name", "status", "content", "content_type", "input", "error", "attempt"),
        *(
            "metrics",
            "tools",
            "requirements",
            "messages",
            "created_at",
            "started_at",
            "finished_at",
            "parent_run_id",
            "metadata",
            "duplicate",
        ),
    ]
    assert [*RunMetrics.model_fields] == [
        *("input_tokens", "output_tokens", "total_tokens", "cached_tokens", "reasoning_tokens", "cost_usd"),
        *("duration", "time_to_first_token", "children"),
    ]


def test_a_status_is_one_of_six_words() -> None:
    words = ["pending", "running", "paused", "completed", "error", "cancelled"]
    assert [status.value for status in RunStatus] == words
    assert [str(status) for status in RunStatus] == [status.name for status in RunStatus] == words
    assert RunStatus.pending == "pending"
    assert f"{RunStatus.pending}" == "pending"
    assert [status for status in RunStatus if status.is_final] == ["completed", "error", "cancelled"]


def test_a_row_becomes_a_run() -> None:
    run = output_from_row(row(), City(name="Tokyo"), None)
    assert (run.run_id, run.session_id, run.agent_name) == (RUN_ID, "s1", "Cities")
    assert run.status is RunStatus.completed
    assert (run.content, run.content_type, run.input) == (City(name="Tokyo"), "City", "Tokyo?")
    assert (run.attempt, run.error, run.metadata) == (2, None, {"team": "a"})
    assert run.metrics == RunMetrics(input_tokens=7, duration=1.5)
    assert (run.created_at, run.started_at, run.finished_at) == (NOW, NOW, None)
    assert (run.parent_run_id, run.tools, run.messages) == (None, [], [])


def test_a_failure_in_a_row_keeps_all_that_was_recorded() -> None:
    error = {"type": "OutputInvalid", "message": "no", "attempt": 2, "raw": "{"}
    run = output_from_row(row(status="error", error=error, parent_run_id=UUID(RUN_ID)), None, None)
    assert run.error is not None
    assert str(run.error) == "OutputInvalid: no"
    assert run.error.model_dump() == error
    assert run.parent_run_id == RUN_ID


def test_a_run_can_be_dumped_as_json_and_read_again() -> None:
    run = output_from_row(row(error={"type": "ModelUnavailable", "message": "later"}), City(name="Tokyo"), None)
    data = json.loads(run.model_dump_json())
    assert data["content"] == {"name": "Tokyo"}
    assert data["status"] == "completed"
    assert data["created_at"] == "2026-01-02T03:04:05Z"
    assert data["error"] == {"type": "ModelUnavailable", "message": "later"}
    again: RunOutput[City] = RunOutput[City].model_validate(data)
    assert again.content == City(name="Tokyo")
    assert again.model_dump() == run.model_dump()


def test_a_typed_run_checks_its_content() -> None:
    assert RunOutput[City].model_validate({"run_id": RUN_ID}).content is None
    with pytest.raises(ValidationError):
        RunOutput[City].model_validate({"run_id": RUN_ID, "content": {"nome": "Roma"}})


async def test_the_result_of_an_ended_run_needs_no_waiting() -> None:
    handle = Handle(output_from_row(row(), "other", None))
    run = output_from_row(row(), "Tokyo", handle)
    assert await run.aresult() == "Tokyo"
    with pytest.raises(RunFailed):
        await output_from_row(row(status="error"), None, handle).aresult()
    with pytest.raises(RunCancelled):
        await output_from_row(row(status="cancelled"), None, handle).aresult()
    assert handle.waits == []


@pytest.mark.parametrize("status", ["pending", "running", "paused"])
async def test_the_result_of_an_open_run_is_waited_for(status: str) -> None:
    handle = Handle(output_from_row(row(), "Tokyo", None))
    run = output_from_row(row(status=status), None, handle)
    assert await run.aresult(timeout=5) == "Tokyo"
    assert handle.waits == [(RUN_ID, 5)]
    assert run.status == status, "it stays the snapshot it was"


def test_the_result_can_be_had_without_an_event_loop() -> None:
    handle = Handle(output_from_row(row(), "Tokyo", None))
    assert output_from_row(row(status="pending"), None, handle).result(timeout=5) == "Tokyo"
    assert handle.waits == [(RUN_ID, 5)]


async def test_its_events_are_read_after_the_last_one_seen() -> None:
    run = output_from_row(row(), "Tokyo", Handle(output_from_row(row(), "other", None)))
    assert [event.seq async for event in run.aevents()] == [1, 2, 3]
    assert [event.text async for event in run.aevents(after=2)] == ["3"]


def test_its_events_can_be_read_without_an_event_loop() -> None:
    run = output_from_row(row(), "Tokyo", Handle(output_from_row(row(), "other", None)))
    assert [event.seq for event in run.events(after=1)] == [2, 3]
    first = next(events := run.events())
    events.close()  # type: ignore[attr-defined]
    assert first.seq == 1


@pytest.mark.parametrize("after", [-1, True, 1.0, "1", None, 2**63])
def test_a_place_in_a_stream_that_cannot_be_is_refused_at_once(after: Any) -> None:
    run = output_from_row(row(), "Tokyo", Handle(output_from_row(row(), "other", None)))
    with pytest.raises(UsageError, match=r"after=.* the seq of the last event you have seen"):
        run.aevents(after=after)


async def test_an_open_run_from_elsewhere_says_how_to_get_at_it() -> None:
    run: RunOutput[Any] = RunOutput(run_id=RUN_ID)
    with pytest.raises(UsageError, match=rf"{RUN_ID} was not returned by an agent; use agent.aget_run_output"):
        await run.aresult()


def test_metrics_of_several_calls_add_up() -> None:
    one = RunMetrics(input_tokens=1, output_tokens=2, total_tokens=3, cached_tokens=4, reasoning_tokens=5, duration=0.5)
    two = RunMetrics(input_tokens=10, cost_usd=0.25, time_to_first_token=0.1)
    assert one + two == RunMetrics(
        input_tokens=11,
        output_tokens=2,
        total_tokens=3,
        cached_tokens=4,
        reasoning_tokens=5,
        cost_usd=0.25,
        duration=0.5,
        time_to_first_token=0.1,
    )
    assert (two + two).cost_usd == 0.5
    assert (one + one).cost_usd is None
    assert (RunMetrics(time_to_first_token=0.2) + two).time_to_first_token == 0.2, "the first of them"
