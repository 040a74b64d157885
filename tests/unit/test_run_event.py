"""Events: what they are to a reader, and how an answer grows piece by piece."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from pgrun import RunEvent
from pgrun.run.event import EventReader, Shape
from pgrun.run.output import OutputSchema
from pgrun.run.partial import shape_of

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class City(BaseModel):
    name: str
    sights: list[str]


def contents(shape: Shape, *told: tuple[str, dict[str, Any]], so_far: tuple[str, ...] = ()) -> list[Any]:
    """The content of each of these events, looked at only after all of them were read."""
    reader = EventReader("run", shape, so_far)
    events = [reader.read(seq, kind, data, 1, NOW) for seq, (kind, data) in enumerate(told, 1)]
    return [event.content for event in events]


def said(text: str) -> tuple[str, dict[str, Any]]:
    return "text", {"text": text}


def test_an_event_is_frozen_and_goes_through_json() -> None:
    event = RunEvent(run_id="r", seq=1, kind="text", data={"text": "Hi"}, attempt=1, created_at=NOW)
    assert event.text == "Hi"
    assert event.content is None
    assert RunEvent.model_validate_json(event.model_dump_json()) == event
    with pytest.raises(ValidationError):
        event.seq = 2  # type: ignore[misc]


def test_what_two_readers_see_is_equal() -> None:
    one, other = (
        EventReader("run", Shape(), so_far).read(2, "text", {"text": "Hi"}, 1, NOW) for so_far in ((), ("Oh ",))
    )
    assert one == other == RunEvent(run_id="run", seq=2, kind="text", data={"text": "Hi"}, attempt=1, created_at=NOW)
    assert one.content != other.content


def test_only_text_has_a_text() -> None:
    assert RunEvent(run_id="r", seq=1, kind="thought", data={"text": "Hm"}, created_at=NOW).text == ""
    assert RunEvent(run_id="r", seq=1, kind="started", data={}, created_at=NOW).text == ""


def test_plain_text_grows() -> None:
    told = [said("It "), ("thought", {"text": "hm"}), said("rains.")]
    assert contents(Shape(), ("started", {}), *told, ("completed", {"output": "It rains."})) == [
        *(None, "It ", "It ", "It rains.", "It rains.")
    ]


def test_a_typed_answer_has_what_of_it_is_there() -> None:
    told = (said('{"na'), said('me": "Ro'), said('me", "sights": ["For'), said('um"]}'))
    ended = ("completed", {"output": {"name": "Rome", "sights": ["Forum"]}})
    assert contents(shape_of(OutputSchema.of(City)), *told, ended) == [
        {},
        {"name": "Ro"},
        {"name": "Rome", "sights": ["For"]},
        {"name": "Rome", "sights": ["Forum"]},
        City(name="Rome", sights=["Forum"]),
    ]


@pytest.mark.parametrize(
    ("text", "partial"),
    [
        ("", None),
        ("{", None),
        ('{"value', None),
        ('{"value": [1, 2', [1, 2]),
        ('{"value": [1, 2]}', [1, 2]),
        ("[1, 2]", [1, 2]),
    ],
)
def test_a_wrapped_answer_is_what_is_inside(text: str, partial: Any) -> None:
    assert shape_of(OutputSchema.of(list[int])).partial(text) == partial


@pytest.mark.parametrize("text", ["Well", "```json", '```json\n{"name": "Ro', '  ```\n{"name": "Ro'])
def test_what_servers_write_around_json_does_not_disturb(text: str) -> None:
    assert shape_of(OutputSchema.of(City)).partial(text) == ({"name": "Ro"} if "{" in text else None)


@pytest.mark.parametrize("kind", ["started", "retried", "released", "parked"])
def test_what_was_said_before_another_attempt_is_void(kind: str) -> None:
    assert contents(Shape(), said("It "), (kind, {}), said("No")) == ["It ", None, "No"]


def test_the_next_answer_of_the_model_begins_anew() -> None:
    between = [("model_call_completed", dict[str, Any]()), ("tool_call_started", dict[str, Any]())]
    assert contents(Shape(), said("I look."), *between, said("Sun.")) == ["I look.", "I look.", None, "Sun."]


def test_a_reader_in_the_middle_knows_what_came_before() -> None:
    assert contents(Shape(), said("rains."), so_far=("It ",)) == ["It rains."]


def test_the_end_of_a_failed_run_shows_how_far_it_came() -> None:
    assert contents(Shape(), said("It "), ("error", {"error": {}})) == ["It ", "It "]


def test_events_that_are_kept_do_not_keep_copies_of_the_text() -> None:
    reader = EventReader("run", Shape())
    events = [reader.read(seq, "text", {"text": "x" * 1000}, 1, NOW) for seq in range(1, 1001)]
    assert len(events[0].content) == 1000
    assert len(events[-1].content) == 1_000_000
