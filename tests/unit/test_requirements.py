"""Tools that need a person, as they are declared, and decisions, as they are made: what does not fit is refused at once."""

from collections.abc import Callable
from typing import Any

import pytest
from support.models import ScriptedModel

from pgrun import Agent, RunContext, RunRequirement, UsageError, tool


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
