"""A foreground run without a database whose events are read."""

from typing import Any

import anyio
import pytest
from pydantic import BaseModel
from support.models import calling
from support.reading import Reading, all_of, kinds_of, text_of
from support.speaking import ANSWERED, Item, SpeakingModel

from pgrun import Agent, ModelRejected, ModelUnavailable, RetryPolicy, RunEvent, RunFailed, UsageError
from pgrun.models.base import ModelResponse


class City(BaseModel):
    name: str


def agent_of(*script: Item, **options: Any) -> Agent[Any]:
    retry = RetryPolicy(max_attempts=2, base_delay=0.01, jitter=0.0)
    return Agent(name="Speaking", model=SpeakingModel(*script), retry=retry, **options)


def model_of(agent: Agent[Any]) -> SpeakingModel:
    model = agent.definition.model
    assert isinstance(model, SpeakingModel)
    return model


async def test_events_come_while_the_model_speaks() -> None:
    heard = anyio.Event()
    agent = agent_of("It ", heard, "rains.")
    events: list[RunEvent] = []
    async for event in agent.arun("?", stream=True):
        events.append(event)
        if event.text == "It ":
            heard.set()  # else the model says no more
    assert kinds_of(events) == ["started", "text", "model_call_completed", "completed"]
    assert [event.seq for event in events] == [*range(1, len(events) + 1)]
    assert events[-1].data["output"] == events[-1].content == text_of(events) == "It rains."
    assert events[-1].data["metrics"]["total_tokens"] == 13
    assert model_of(agent).asked[0].watch.wants_text


async def test_a_typed_answer_is_seen_growing() -> None:
    agent = agent_of('{"name": "Ro', 'me"}', output_schema=City)
    contents = [event.content async for event in agent.arun("?", stream=True) if event.content]
    assert contents == [{"name": "Ro"}, {"name": "Rome"}, {"name": "Rome"}, City(name="Rome")]


async def test_tools_are_told_of() -> None:
    def look(city: str) -> str:
        """Looks."""
        return "sun"

    agent = agent_of(calling(("look", '{"city": "Rome"}')), "Sun.", tools=[look])
    events = await all_of(agent.arun("?", stream=True))
    assert kinds_of(events)[1:4] == ["model_call_completed", "tool_call_started", "tool_call_completed"]


async def test_a_further_attempt_makes_void_what_was_said() -> None:
    agent = agent_of("It ", ModelUnavailable("gone"), "Sun.")
    events = await all_of(agent.arun("?", stream=True))
    assert kinds_of(events)[:5] == ["started", "text", "retried", "started", "text"]
    assert events[2].data["error"]["type"] == "ModelUnavailable"
    assert [event.attempt for event in events[:5]] == [1, 1, 1, 2, 2]
    assert events[4].content == "Sun."


async def test_a_failure_is_the_last_event_and_then_raised() -> None:
    reading = Reading(agent_of("It ", ModelRejected("no")).arun("?", stream=True))
    with pytest.raises(RunFailed) as caught:
        await reading.read()
    assert isinstance(caught.value.__cause__, ModelRejected)
    assert kinds_of(reading.events) == ["started", "text", "error"]
    assert reading.events[-1].data["error"]["message"] == "no"


async def test_who_stops_reading_stops_the_run() -> None:
    agent = agent_of("It ", anyio.Event())
    events = agent.arun("?", stream=True)
    async for event in events:
        if event.text:
            break
    await events.aclose()
    assert model_of(agent).is_stopped


async def test_who_is_cancelled_while_reading_stops_the_run() -> None:
    agent = agent_of("It ", anyio.Event())
    with anyio.CancelScope() as scope:
        async for event in agent.arun("?", stream=True):
            if event.text:
                scope.cancel()
    assert model_of(agent).is_stopped


async def test_a_call_that_cannot_be_is_refused_before_it_is_iterated() -> None:
    with pytest.raises(UsageError):
        agent_of().arun(object(), stream=True)
    with pytest.raises(UsageError, match="has no db"):
        await agent_of().arun("?", stream=True, background=True)


def test_without_an_event_loop() -> None:
    agent = agent_of("It ", "rains.", ANSWERED, ModelResponse("Sun."))
    assert text_of(agent.run("?", stream=True)) == "It rains."
    assert agent.run("?").content == "Sun."
    events = agent_of("It ", anyio.Event()).run("?", stream=True)
    assert next(iter(events)).kind == "started"
