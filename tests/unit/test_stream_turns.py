"""What an attempt tells while it goes on."""

from typing import Any

import pytest
from pydantic import BaseModel
from support.models import USAGE, ScriptedModel, calling
from support.speaking import ANSWERED, Item, SpeakingModel

from pgrun import ModelUnavailable, OutputTruncated, RunContext, ToolFailed, tool
from pgrun.models.base import Message, Model, ModelResponse
from pgrun.run._tool_calls import ToolCalls
from pgrun.run._toolset import toolset_of
from pgrun.run.journal import Journal, Step
from pgrun.run.loop import Turns
from pgrun.run.output import OutputSchema
from pgrun.run.stream import Stream

CONTEXT = RunContext(run_id="run-1", session_id=None, agent_name="Weather", attempt=1)
USED = USAGE.model_dump(exclude_defaults=True)


class Report(BaseModel):
    sky: str


class Told(Stream):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, dict[str, Any]]] = []

    def tell(self, kind: str, **data: Any) -> None:
        if "duration" in data:
            assert data.pop("duration") >= 0
        self.events.append((kind, data))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]


@tool
def weather(city: str) -> str:
    """Tells the weather."""
    if city == "Atlantis":
        raise ToolFailed("sunk")
    return f"sun in {city}"


def turns_of(model: Model, *, journal: Journal | None = None, output: Any = None) -> tuple[Turns, Told]:
    told = Told()
    tools = toolset_of([weather], call_limit=None, choice=None, max_turns=10)
    calls = ToolCalls(tools, CONTEXT, journal, stream=told)
    schema = OutputSchema.of(output) if output else None
    return Turns(model, (Message("user", "Rome?"),), schema, calls=calls), told


async def told_by(*script: Item, output: Any = None) -> Told:
    turns, told = turns_of(SpeakingModel(*script), output=output)
    await turns.take()
    return told


async def test_pieces_of_the_answer_and_what_it_used() -> None:
    told = await told_by("It ", "rains.")
    assert told.events == [
        ("text", {"text": "It "}),
        ("text", {"text": "rains."}),
        ("model_call_completed", {"model": "speaking", "usage": USED}),
    ]


async def test_a_model_that_tells_nothing_meanwhile_has_its_answer_told() -> None:
    turns, told = turns_of(ScriptedModel("It rains."))
    await turns.take()
    assert told.events[0] == ("text", {"text": "It rains."})
    assert told.kinds == ["text", "model_call_completed"]


async def test_calls_of_tools_with_arguments_and_results() -> None:
    rome = calling(("weather", '{"city": "Rome"}'))
    told = await told_by(rome, "Sun.", ANSWERED)
    assert told.events[:3] == [
        ("model_call_completed", {"model": "speaking", "usage": USED}),
        ("tool_call_started", {"call_id": "call_1", "name": "weather", "arguments": {"city": "Rome"}}),
        ("tool_call_completed", {"call_id": "call_1", "name": "weather", "result": "sun in Rome"}),
    ]
    assert told.kinds[3:] == ["text", "model_call_completed"]


async def test_a_call_that_goes_wrong_is_told_with_its_error() -> None:
    told = await told_by(calling(("weather", "{}"), ("snow", "{}")), "Sorry.", ANSWERED)
    errors = [data["error"] for kind, data in told.events if kind == "tool_call_completed"]
    assert len(errors) == 2
    assert any("There is no tool snow" in error for error in errors)


async def test_a_tool_that_ends_the_run_has_begun_and_not_completed() -> None:
    turns, told = turns_of(SpeakingModel(calling(("weather", '{"city": "Atlantis"}'))))
    with pytest.raises(ToolFailed):
        await turns.take()
    assert told.kinds == ["model_call_completed", "tool_call_started"]


async def test_an_answer_that_has_to_be_mended_is_told_twice() -> None:
    told = await told_by("sun", ANSWERED, '{"sky": ', '"blue"}', ANSWERED, output=Report)
    assert told.kinds == ["text", "model_call_completed", "text", "text", "model_call_completed"]


async def test_what_was_paid_for_is_told_although_it_is_no_answer() -> None:
    turns, told = turns_of(SpeakingModel("It ", ModelResponse("", ending="truncated", usage=USAGE)))
    with pytest.raises(OutputTruncated):
        await turns.take()
    assert told.kinds == ["text", "model_call_completed"]


async def test_an_answer_that_breaks_off_has_no_end() -> None:
    turns, told = turns_of(SpeakingModel("It ", ModelUnavailable("gone")))
    with pytest.raises(ModelUnavailable):
        await turns.take()
    assert told.kinds == ["text"]


async def test_what_an_earlier_attempt_has_recorded_is_not_told_again() -> None:
    call = {"call_id": "call_1", "name": "weather", "arguments": '{"city": "Rome"}'}
    recorded = {
        1: Step(1, "model_call", "m", {"text": "", "calls": [call]}, 0.1),
        2: Step(2, "tool_call", "weather", {**call, "result": "sun"}, 0.1),
    }
    turns, told = turns_of(SpeakingModel("Sun."), journal=Journal(recorded))
    await turns.take()
    assert told.kinds == ["text", "model_call_completed"]


async def test_characters_that_cannot_be_stored_are_replaced() -> None:
    told = Told()
    told.text("a\x00b")
    told.thought("\ud800")
    told.call("id\x00", "look")
    told.text("")
    assert told.events == [
        ("text", {"text": "a\ufffdb"}),
        ("thought", {"text": "\ufffd"}),
        ("tool_call_announced", {"call_id": "id\ufffd", "name": "look"}),
    ]
