"""Calls that wait for a person: what the run waits for, and what becomes of the call once that is decided."""

from support.models import calling
from support.shop import LOOK, REFUND, SHIP, SIGN, Shop

from pgrun import tool


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
    await shop.until_dead("refund 8")
    assert await shop.attempt() == "Done."
    assert [*map(shop.called.count, ("refund 7", "refund 8"))] == [1, 2]
