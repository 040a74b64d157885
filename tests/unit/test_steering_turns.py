"""Attempts that die at any moment of a run that people talk to: each message is heard once, and by all attempts at one place."""

from typing import Any

import pytest
from support.models import USAGE, calling

from pgrun import RunContext
from pgrun.models.base import Message, ModelRequest, ModelResponse
from pgrun.run._tool_calls import ToolCalls
from pgrun.run._toolset import toolset_of
from pgrun.run.journal import Journal, Step
from pgrun.run.loop import Turns

QUESTION = (Message("user", "Rome?"),)
CONTEXT = RunContext(run_id="run-1", session_id=None, agent_name="Weather", attempt=1)


class Dies(BaseException):
    """The end of a process, as far as one attempt can see it."""


class World:
    """What outlives attempts: recorded steps, what was said, and what the model was asked.

    At each call of the model something is said, as long as there is something to say.
    """

    def __init__(self, *to_say: str) -> None:
        self.steps: dict[int, Step] = {}
        self.said: list[str] = []
        self.asked: list[tuple[Message, ...]] = []
        self._to_say = [*to_say]

    async def attempt(self, lives: int) -> Turns:
        """Turns that die after so many moments, and are given back as long as there is something unheard at their end."""
        world, moments = self, 0

        def moment() -> None:
            nonlocal moments
            moments += 1
            if moments > lives:
                raise Dies

        class Model:
            provider = id = "scripted"

            def definition(self) -> dict[str, Any]:
                return {}

            async def call(self, request: ModelRequest) -> ModelResponse:
                moment()
                world.asked.append(request.messages)
                world.said += world._to_say[:1]
                del world._to_say[:1]
                moment()
                spoken = sum(message.role == "user" for message in request.messages)
                if request.messages[-1].role == "user":
                    return calling(("look", "{}"))
                return ModelResponse(f"answer {spoken}", usage=USAGE)

        class Stored(Journal):
            async def keep(self, step: Step) -> None:
                moment()
                world.steps.setdefault(step.number, step)
                self.said = [*world.said]
                moment()

        def look() -> str:
            """Looks."""
            return "sun"

        while True:
            journal = Stored(dict(self.steps))
            journal.said = [*self.said]
            toolset = toolset_of([look], call_limit=None, choice=None, max_turns=5)
            turns = Turns(Model(), QUESTION, calls=ToolCalls(toolset, CONTEXT, journal))
            self.answer = await turns.take()
            if journal.heard == len(self.said):
                return turns
            step = turns.last_step()  # what release_unheard.sql does
            if step is not None:
                self.steps[step.number] = step

    async def live(self, lives: int) -> Turns:
        try:
            return await self.attempt(lives)
        except BaseException as error:
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            if not isinstance(error, Dies):
                raise
        return await self.attempt(1_000)


async def test_each_message_is_heard_once_wherever_an_attempt_dies() -> None:
    whole = World("a", "b", "c", "d")
    turns = await whole.attempt(1_000)
    conversation = turns.messages
    said = [message.content for message in conversation if message.role == "user"]
    assert said == ["Rome?", "a", "b", "c", "d"]
    assert whole.answer == "answer 5"
    for lives in range(40):
        world = World("a", "b", "c", "d")
        turns = await world.live(lives)
        assert [message.content for message in turns.messages if message.role == "user"] == said, lives
        assert world.answer == "answer 5", lives
        for asked in world.asked:  # what was heard stays where it was heard
            assert turns.messages[: len(asked)] == asked, lives


async def test_what_is_new_waits_until_the_journal_has_been_repeated() -> None:
    world = World()
    await world.attempt(1_000)
    world.said = ["late"]
    turns = await world.attempt(1_000)
    roles = [(message.role, message.content) for message in turns.messages]
    assert roles[1:4] == [("assistant", ""), ("tool", "sun"), ("user", "late")]


@pytest.mark.parametrize("kind", ["model_call", "tool_call"])
def test_a_journal_hears_nothing_before_a_recorded_step(kind: Any) -> None:
    journal = Journal({1: Step(1, kind, "x", {}, 0.0)})
    journal.said = ["news"]
    assert not journal.has_news
    journal.begin()
    assert journal.has_news
