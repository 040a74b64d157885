"""Attempts that die at any moment: the next one goes on from the journal, and nothing that is recorded is done again."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel
from support.models import USAGE, calling

from pgrun import LeaseLost, RunContext, RunMetrics, ToolExecution
from pgrun.models.base import Message, ModelRequest, ModelResponse
from pgrun.run._tool_calls import ToolCalls
from pgrun.run._toolset import toolset_of
from pgrun.run.journal import Journal, Step
from pgrun.run.loop import Turns
from pgrun.run.output import OutputSchema

QUESTION = (Message("user", "Rome and Oslo?"),)
CONTEXT = RunContext(run_id="run-1", session_id=None, agent_name="Weather", attempt=1)
ANSWERS = (
    calling(("weather", '{"city": "Rome"}'), ("weather", '{"city": "Oslo"}'), text="I look."),
    calling(("weather", '{"city": "Nowhere"}')),
    ModelResponse("sun", usage=USAGE),  # does not match
    ModelResponse('{"text": "sun"}', usage=USAGE),
)


class Report(BaseModel):
    text: str


class Dies(BaseException):
    """The end of a process, as far as one attempt can see it."""


class Life:
    """Counts what happens and ends the attempt at the given moment; from 0, None for never."""

    def __init__(self, ends_at: int | None) -> None:
        self._ends_at = ends_at
        self.moments = 0

    def moment(self) -> None:
        self.moments += 1
        if self._ends_at is not None and self.moments > self._ends_at:
            raise Dies


class World:
    """What outlives attempts: the recorded steps, and what was asked and called, by attempt."""

    def __init__(self) -> None:
        self.steps: dict[int, Step] = {}
        self.asked: list[ModelRequest] = []
        self.keys = Counter[str]()
        self.cities: list[str] = []

    def attempt(self, life: Life, number: int = 1) -> Turns:
        """Turns that live that life."""
        world = self

        class Model:
            provider = "scripted"
            id = "scripted"

            def definition(self) -> dict[str, Any]:
                return {}

            async def call(self, request: ModelRequest) -> ModelResponse:
                life.moment()
                world.asked.append(request)
                answered = sum(message.role == "assistant" for message in request.messages)
                life.moment()
                return ANSWERS[answered]

        class Recorder(Journal):
            async def keep(self, step: Step) -> None:
                life.moment()
                assert step.number not in world.steps, "recorded twice"
                world.steps[step.number] = step
                life.moment()

        async def weather(city: str, run: RunContext) -> str:
            """Tells the weather."""
            life.moment()
            world.cities.append(city)
            world.keys[run.idempotency_key] += 1
            life.moment()
            if city == "Nowhere":
                raise LookupError(city)
            return f"{city}: sun"

        toolset = toolset_of([weather], call_limit=None, choice=None, max_turns=30)
        calls = ToolCalls(toolset, replace(CONTEXT, attempt=number), Recorder(dict(self.steps)))
        return Turns(Model(), QUESTION, OutputSchema.of(Report), calls=calls)


async def survived(turns: Turns) -> Any:
    """What the attempt returned, None if it died."""
    try:
        return await turns.take()
    except BaseException as error:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if not isinstance(error, Dies):
            raise
        return None


async def test_whenever_an_attempt_dies_the_next_repeats_at_most_what_was_under_way() -> None:
    whole, life = World(), Life(None)
    turns = whole.attempt(life)
    assert await turns.take() == {"text": "sun"}
    assert len(whole.asked) == 4
    for moment in range(life.moments):
        world = World()
        assert await survived(world.attempt(Life(moment))) is None
        asked_before, recorded = len(world.asked), set(world.steps)
        last = world.attempt(Life(None), number=2)
        assert await last.take() == {"text": "sun"}
        assert last.messages == turns.messages
        assert [(each.arguments, each.result, each.error) for each in last.calls.executions] == [
            (each.arguments, each.result, each.error) for each in turns.calls.executions
        ]
        answers_recorded = sum(world.steps[number].kind == "model_call" for number in recorded)
        assert len(world.asked) - asked_before == 4 - answers_recorded
        assert asked_before <= answers_recorded + 1
        assert set(world.keys) == set(whole.keys), "a call that is made again has the key it had"
        assert world.steps.keys() == whole.steps.keys()


async def test_attempts_that_die_again_and_again_still_come_to_the_end() -> None:
    for lives in range(3, 9):
        world, attempts = World(), 0
        while await survived(world.attempt(Life(lives))) is None:
            attempts += 1
            assert attempts < 30
        assert len(world.asked) <= 4 + attempts


async def test_what_earlier_attempts_used_is_not_counted_again() -> None:
    world = World()
    await survived(world.attempt(Life(9)))
    kept = [step.data["usage"]["total_tokens"] for step in world.steps.values() if step.kind == "model_call"]
    last = world.attempt(Life(None))
    await last.take()
    assert kept
    assert last.metrics.total_tokens == (4 - len(kept)) * USAGE.total_tokens
    assert last.taken == 4


async def test_a_run_that_ends_with_its_first_answer_records_nothing() -> None:
    class Straight:
        provider = id = "straight"

        def definition(self) -> dict[str, Any]:
            return {}

        async def call(self, request: ModelRequest) -> ModelResponse:
            return ModelResponse("fine")

    class Refuses(Journal):
        async def keep(self, step: Step) -> None:
            raise AssertionError(step)

    toolset = toolset_of(None, call_limit=None, choice=None, max_turns=30)
    turns = Turns(Straight(), QUESTION, calls=ToolCalls(toolset, CONTEXT, Refuses()))
    assert await turns.take() == "fine"


async def test_a_step_holds_what_was_new_and_not_the_conversation() -> None:
    world = World()
    await world.attempt(Life(None)).take()
    first, rome = world.steps[1], world.steps[2]
    assert (first.kind, first.name, first.data["text"]) == ("model_call", "scripted", "I look.")
    assert RunMetrics.model_validate(first.data["usage"]) == USAGE
    assert (rome.kind, rome.name, rome.data["result"]) == ("tool_call", "weather", "Rome: sun")
    assert ToolExecution.model_validate(world.steps[5].data).error == "LookupError: Nowhere"
    assert sorted(world.steps) == [1, 2, 3, 4, 5, 6]


async def test_an_attempt_that_has_lost_its_lease_stops_calling() -> None:
    for lost_at, cities in ((1, 0), (2, 2), (4, 2)):
        world = World()

        class Stale(Journal):
            async def keep(self, step: Step, lost_at: int = lost_at) -> None:
                if step.number >= lost_at:
                    raise LeaseLost("it belongs to another")

        turns = world.attempt(Life(None))
        turns.calls.journal = Stale()
        with pytest.raises(LeaseLost):
            await turns.take()
        assert len(world.cities) == cities
