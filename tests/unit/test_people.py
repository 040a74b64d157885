"""Calls that wait for a person: what the run waits for, and what becomes of the call once that is decided."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel
from support.models import ScriptedModel, calling

from pgrun import Agent, RunContext, RunRequirement, Tool, ToolExecution, UsageError, tool
from pgrun.models.base import Message
from pgrun.run._tool_calls import ToolCalls
from pgrun.run._toolset import toolset_of
from pgrun.run.journal import Journal, Step
from pgrun.run.loop import Turns
from pgrun.run.requirement import RunPaused

CONTEXT = RunContext(run_id="run-1", session_id=None, agent_name="Shop", attempt=1)
QUESTION = (Message("user", "Refund order 7."),)


class Address(BaseModel):
    street: str


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

    @property
    def shown(self) -> list[str]:
        """The results that the model was shown last."""
        return [message.content for message in self.asked[-1].messages if message.role == "tool"]


class Dies(BaseException):
    """The end of a process, as far as one attempt can see it."""


REFUND = ("refund", '{"order": 7}')
SHIP = ("ship", '{"order": 7}')
SIGN = ("sign", '{"order": 7}')
BILL = ("bill", '{"order": 7}')
LOOK = ("look", '{"order": 7}')


async def test_calls_that_need_nobody_are_made_first_and_the_others_are_what_the_run_waits_for() -> None:
    shop = Shop(calling(REFUND, LOOK, SIGN), "Done.")
    refund, sign = await shop.until_paused()
    assert shop.called == ["look 7"]
    assert (refund.kind, refund.step, refund.call_id, refund.name, refund.arguments) == (
        *("confirmation", 2, "call_1", "refund"),
        {"order": 7},
    )
    assert (sign.kind, sign.step, sign.call_id) == ("external", 4, "call_3")
    assert refund.needs_confirmation
    assert sign.needs_external_execution


async def test_a_confirmed_call_is_made_and_nothing_else_is_done_again() -> None:
    shop = Shop(calling(REFUND, LOOK), "Done.")
    (refund,) = await shop.until_paused()
    refund.confirm()
    assert await shop.attempt() == "Done."
    assert shop.called == ["look 7", "refund 7"]
    assert shop.shown == ["did refund 7", "did look 7"]
    assert len(shop.asked) == 1


async def test_a_rejected_call_is_not_made_and_the_model_is_told_why() -> None:
    shop = Shop(calling(REFUND), "Done.")
    (refund,) = await shop.until_paused()
    refund.reject("he is a fraud")
    assert await shop.attempt() == "Done."
    assert shop.called == []
    assert shop.shown == ["A person rejected this call, and it was not executed. They say: he is a fraud"]
    assert shop.executions[0].error == shop.shown[0]


async def test_a_rejection_counts_although_the_tool_would_ask_nobody_any_more() -> None:
    shop = Shop(calling(REFUND), "Done.")
    (asked,) = await shop.until_paused()
    asked.reject()

    def refund(order: int) -> None:
        raise AssertionError("called")

    shop.tools = lambda: [tool(repeat="pure")(refund)]  # type: ignore[method-assign]
    assert await shop.attempt() == "Done."
    assert shop.shown == ["A person rejected this call, and it was not executed."]


async def test_what_a_person_fills_in_is_not_known_to_the_model_and_given_to_the_tool() -> None:
    shop = Shop(calling(SHIP), "Done.")
    (ship,) = await shop.until_paused()
    assert shop.asked[0].tools[1].parameters["properties"].keys() == {"order"}
    assert [(field.name, field.description, field.required) for field in ship.fields] == [
        ("to", "Where to.", True),
        ("on", "", False),
    ]
    assert "$defs" in ship.fields[0].type
    assert ship.needs_user_input
    ship.provide_user_input({"to": {"street": "Elm"}})
    assert await shop.attempt() == "Done."
    assert shop.called == ["ship 7 to Elm on 2026-01-01"]


async def test_input_that_does_not_fit_is_asked_for_again_with_what_is_wrong() -> None:
    shop = Shop(calling(SHIP), "Done.")
    (ship,) = await shop.until_paused()
    ship.provide_user_input({"to": {}, "on": "someday"})
    (again,) = await shop.until_paused()
    assert again.problem is not None
    assert again.problem.startswith("Invalid arguments: to.street: Field required; on: Input should be a valid date")
    assert [each.is_open for each in shop.requirements] == [False, True]
    again.provide_user_input({"to": {"street": "Elm"}, "on": "2026-05-01"})
    assert await shop.attempt() == "Done."
    assert shop.called == ["ship 7 to Elm on 2026-05-01"]


async def test_a_call_that_is_executed_elsewhere_has_the_result_it_was_given() -> None:
    shop = Shop(calling(SIGN), "Done.")
    (sign,) = await shop.until_paused()
    sign.set_external_execution_result("signed")
    assert await shop.attempt() == "Done."
    assert shop.shown == ["signed"]


async def test_arguments_that_do_not_fit_are_shown_to_the_model_and_nobody_is_asked() -> None:
    shop = Shop(calling(("refund", "{}"), ("ship", '{"order": 7, "to": "me"}')), "Done.")
    assert await shop.attempt() == "Done."
    assert shop.shown == [
        "Invalid arguments: order: Field required",
        "Invalid arguments: to: Extra inputs are not permitted",
    ]


async def test_a_later_call_of_the_same_is_asked_for_again() -> None:
    shop = Shop(calling(REFUND), calling(REFUND), "Done.")
    for step in (2, 4):
        (refund,) = await shop.until_paused()
        assert refund.step == step
        refund.confirm()
    assert await shop.attempt() == "Done."
    assert shop.called == ["refund 7", "refund 7"]
    assert [each.approved for each in shop.requirements] == [True, True]


async def test_an_attempt_that_dies_between_two_approved_calls_leaves_the_second_approved() -> None:
    shop = Shop(calling(REFUND, ("refund", '{"order": 8}')), "Done.")
    for each in await shop.until_paused():
        each.confirm()
    shop.dies_in = "refund 8"
    with pytest.raises(BaseException):  # noqa: B017, PT011  a group around it
        await shop.attempt()
    shop.dies_in = ""
    assert await shop.attempt() == "Done."
    assert [*map(shop.called.count, ("refund 7", "refund 8"))] == [1, 2]


async def until_it_may_have_happened(shop: Shop) -> RunRequirement:
    """An attempt that dies inside the unsafe tool, and what the next one asks."""
    shop.dies_in = "bill 7"
    with pytest.raises(BaseException):  # noqa: B017, PT011  a group around it
        await shop.attempt()
    shop.dies_in = ""
    (bill,) = await shop.until_paused()
    assert (bill.kind, bill.name) == ("repeat", "bill")
    return bill


def say_yes(bill: RunRequirement) -> None:
    bill.confirm()


def say_no(bill: RunRequirement) -> None:
    bill.reject("too risky")


def say_what_it_returned(bill: RunRequirement) -> None:
    bill.set_external_execution_result("billed")


@pytest.mark.parametrize(
    ("decide", "times", "shown"),
    [
        (say_yes, 2, "did bill 7"),
        (
            say_no,
            1,
            (
                "Nobody knows whether this call was executed, and a person decided that it is not to be repeated. "
                "They say: too risky"
            ),
        ),
        (say_what_it_returned, 1, "billed"),
    ],
)
async def test_an_unsafe_call_that_may_have_happened_is_left_to_a_person(
    decide: Callable[[RunRequirement], None], times: int, shown: str
) -> None:
    shop = Shop(calling(BILL), "Done.")
    bill = await until_it_may_have_happened(shop)
    assert shop.called == ["bill 7"]
    decide(bill)
    assert await shop.attempt() == "Done."
    assert shop.called == ["bill 7"] * times
    assert shop.shown == [shown]


async def test_an_approved_repeat_that_dies_too_is_asked_for_again() -> None:
    shop = Shop(calling(BILL), "Done.")
    for times in (1, 2):
        bill = await until_it_may_have_happened(shop)
        assert bill.times == times
        bill.confirm()
    assert await shop.attempt() == "Done."
    assert shop.called == ["bill 7"] * 3


async def test_a_call_that_ended_is_no_question_also_if_it_ended_badly(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop(calling(BILL), "Done.")

    def refuse(order: int) -> None:
        raise ConnectionError("closed")

    shop.tools = lambda: [tool(name="bill")(refuse)]  # type: ignore[method-assign]
    assert await shop.attempt() == "Done."
    assert shop.begun == {}
    assert shop.shown == ["ConnectionError: closed"]


async def test_a_tool_may_need_a_yes_and_a_question_when_it_died() -> None:
    shop = Shop(calling(BILL), "Done.")
    made: list[int] = []

    @tool(name="bill", requires_confirmation=True)
    def bill(order: int) -> str:
        made.append(order)
        if len(made) == 1:
            raise Dies
        return "billed"

    shop.tools = lambda: [bill]  # type: ignore[method-assign]
    (asked,) = await shop.until_paused()
    assert asked.kind == "confirmation"
    asked.confirm()
    with pytest.raises(BaseException):  # noqa: B017, PT011  a group around it
        await shop.attempt()
    (asked,) = await shop.until_paused()
    assert asked.kind == "repeat"
    asked.confirm()
    assert await shop.attempt() == "Done."
    assert made == [7, 7]


async def test_an_agent_without_a_database_cannot_wait_for_a_person() -> None:
    @tool(requires_confirmation=True)
    def refund(order: int) -> None: ...

    agent = Agent(name="Shop", model=ScriptedModel("Done."), tools=[refund])
    with pytest.raises(UsageError, match=r'Agent "Shop" has no db, where a run is kept .*, as refund does'):
        await agent.arun("Refund order 7.")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"requires_confirmation": True, "external_execution": True}, "at most one of requires_confirmation"),
        ({"requires_user_input": True, "requires_confirmation": True}, "at most one of requires_confirmation"),
        ({"user_input_fields": ["to"]}, "user_input_fields is a list of names, and needs requires_user_input=True"),
        ({"requires_user_input": True, "user_input_fields": "to"}, "user_input_fields is a list of names"),
        ({"requires_user_input": True, "user_input_fields": ["two"]}, "it has no parameter two"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_declaration(options: dict[str, Any], says: str) -> None:
    def ship(to: str) -> None: ...

    with pytest.raises(UsageError, match=says):
        tool(**options)(ship)


def test_without_names_a_person_fills_in_all_parameters() -> None:
    @tool(requires_user_input=True)
    def ship(to: str, run: RunContext, floor: int = 0) -> None: ...

    assert [field.name for field in ship.fields] == ["to", "floor"]
    assert ship.spec.parameters["properties"] == {}


def requirement(kind: Any, **facts: Any) -> RunRequirement:
    return RunRequirement(kind=kind, step=2, call_id="c", name="ship", arguments={}, **facts)


@pytest.mark.parametrize(
    ("decide", "says"),
    [
        (lambda: requirement("external").confirm(), "give what it returned, with set_external_execution_result"),
        (lambda: requirement("user_input", fields=[{"name": "to"}]).confirm(), "it needs to; give them with provide"),
        (lambda: requirement("confirmation").provide_user_input({}), "it takes no input"),
        (lambda: requirement("confirmation").set_external_execution_result("x"), "it is called by a worker"),
        (
            lambda: requirement("user_input", fields=[{"name": "to"}]).provide_user_input({"too": 1}),
            "input has to have to; wrong or missing: too",
        ),
        (
            lambda: requirement("user_input", fields=[{"name": "to"}]).provide_user_input({}),
            "input has to have to; wrong or missing: to",
        ),
        (
            lambda: requirement("confirmation", approved=True, decided_at="2026-01-01T00:00:00Z").reject(),
            "it was approved already",
        ),
    ],
)
def test_a_decision_that_does_not_fit_is_refused_before_it_is_sent(decide: Callable[[], None], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        decide()


def test_one_may_change_ones_mind_until_the_decision_is_stored() -> None:
    asked = requirement("external")
    asked.set_external_execution_result("x")
    asked.reject("no")
    assert (asked.approved, asked.result, asked.note) == (False, None, "no")
