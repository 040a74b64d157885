"""A run whose tools want a person: it goes from attempt to attempt, as worker after worker takes it up."""

from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel

from pgrun import RunContext, RunRequirement, Tool, ToolExecution, tool
from pgrun.models.base import Message
from pgrun.run._tool_calls import ToolCalls
from pgrun.run._toolset import toolset_of
from pgrun.run.journal import Journal, Step
from pgrun.run.loop import Turns
from pgrun.run.requirement import RunPaused
from support.models import ScriptedModel

CONTEXT = RunContext(run_id="run-1", session_id=None, agent_name="Shop", attempt=1)
QUESTION = (Message("user", "Refund order 7."),)


class Address(BaseModel):
    street: str


class Dies(BaseException):
    """The end of a process, as far as one attempt can see it."""


class Shop:
    """A run that goes from attempt to attempt, and what its tools have done."""

    def __init__(self, *answers: Any) -> None:
        self.called: list[str] = []
        self.answers = answers
        self.steps: dict[int, Step] = {}
        self.begun: dict[int, int] = {}
        self.requirements: list[RunRequirement] = []
        self.dies_in = ""
        self.asked: list[Any] = []
        self.executions: list[ToolExecution] = []

    def tools(self) -> list[Tool[..., Any]]:
        def did(what: str) -> str:
            self.called.append(what)
            if what == self.dies_in:
                raise Dies
            return f"did {what}"

        @tool(requires_confirmation=True, repeat="pure")
        async def refund(order: int) -> str:
            """Pays money back."""
            return did(f"refund {order}")

        @tool(requires_user_input=True, user_input_fields=["to", "on"], repeat="pure")
        async def ship(order: int, to: Address, on: date = date(2026, 1, 1)) -> str:
            """Sends it.

            Args:
                order: Which.
                to: Where to.
            """
            return did(f"ship {order} to {to.street} on {on}")

        @tool(external_execution=True)
        async def sign(order: int) -> str:
            raise AssertionError("called")

        @tool
        async def bill(order: int) -> str:
            return did(f"bill {order}")

        @tool(repeat="pure")
        async def look(order: int) -> str:
            return did(f"look {order}")

        return [refund, ship, sign, bill, look]

    async def attempt(self) -> str:
        """One attempt, which finds all that was recorded; what the run answers."""
        shop = self

        class Recorder(Journal):
            async def start(self, number: int, name: str) -> None:
                shop.begun[number] = self.begun(number) + 1

            async def keep(self, step: Step) -> None:
                assert step.number not in shop.steps, "recorded twice"
                shop.begun.pop(step.number, None)
                shop.steps[step.number] = step

        journal = Recorder(dict(self.steps), [*self.requirements], dict(self.begun))
        toolset = toolset_of(self.tools(), call_limit=None, choice=None, max_turns=30)
        calls = ToolCalls(toolset, CONTEXT, journal)
        answered = sum(step.kind == "model_call" for step in self.steps.values())
        model = ScriptedModel(*self.answers[answered:])
        try:
            return str(await Turns(model, QUESTION, calls=calls).take())
        finally:
            self.asked, self.executions = model.asked, calls.executions

    async def until_paused(self) -> list[RunRequirement]:
        """One attempt that has to wait; what for."""
        with pytest.raises(RunPaused) as caught:
            await self.attempt()
        # As the database would give them back.
        self.requirements = [RunRequirement.model_validate(each.to_json()) for each in caught.value.requirements]
        return [each for each in self.requirements if each.is_open]

    async def until_dead(self, inside: str = "") -> None:
        """One attempt, which ends as its process does: inside of a tool, or where the tool says."""
        self.dies_in = inside
        with pytest.RaisesGroup(Dies, flatten_subgroups=True):
            await self.attempt()
        self.dies_in = ""

    @property
    def shown(self) -> list[str]:
        """The results that the model was shown last."""
        return [message.content for message in self.asked[-1].messages if message.role == "tool"]


REFUND = ("refund", '{"order": 7}')
SHIP = ("ship", '{"order": 7}')
SIGN = ("sign", '{"order": 7}')
BILL = ("bill", '{"order": 7}')
LOOK = ("look", '{"order": 7}')
