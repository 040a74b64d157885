"""How urgently a worker has been told to go, by signals and by its supervisor."""

import signal
from collections.abc import AsyncIterator

from pgrun.worker.orders import Orders, Urgency


async def test_urgency_never_becomes_less() -> None:
    orders = Orders()
    orders.give(Urgency.STOP, "now")
    orders.give(Urgency.DRAIN, "later")
    assert orders.urgency is Urgency.STOP
    assert await orders.at_least(Urgency.DRAIN) == "now"


async def test_the_second_signal_asks_for_more_than_the_first() -> None:
    orders = Orders()
    seen = []

    async def signals() -> AsyncIterator[signal.Signals]:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            seen.append(orders.urgency)
            yield number

    await orders.heed(signals())
    assert seen == [Urgency.STAY, Urgency.DRAIN, Urgency.STOP]
    assert await orders.at_least(Urgency.STOP) == "SIGINT again"


async def test_a_signal_and_the_same_order_from_the_supervisor_are_one() -> None:
    orders = Orders()
    orders.give(Urgency.DRAIN, "the supervisor says so")

    async def signals() -> AsyncIterator[signal.Signals]:
        yield signal.SIGTERM

    await orders.heed(signals())
    assert orders.urgency is Urgency.DRAIN
