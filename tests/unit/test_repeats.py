"""Calls of which nobody knows whether they were executed, because their attempt died: a person says what becomes of them."""

from collections.abc import Callable

import pytest
from support.models import calling
from support.shop import BILL, Dies, Shop

from pgrun import RunRequirement, tool


async def until_it_may_have_happened(shop: Shop) -> RunRequirement:
    """An attempt that dies inside the unsafe tool, and what the next one asks."""
    await shop.until_dead("bill 7")
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
    await shop.until_dead()
    (asked,) = await shop.until_paused()
    assert asked.kind == "repeat"
    asked.confirm()
    assert await shop.attempt() == "Done."
    assert made == [7, 7]
