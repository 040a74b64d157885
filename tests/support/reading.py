"""What readers of streams have seen."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import anyio

from pgrun import RunEvent
from support.until import until

LISTENERS = """select count(*) from pg_stat_activity
                where datname = current_database() and query = 'listen "pgrun_events"'"""
"""How many processes listen for events; true until ten seconds after the last of them."""


class Reading:
    """What one reader has seen, and whether it is through."""

    def __init__(self, events: AsyncIterator[RunEvent]) -> None:
        self.events: list[RunEvent] = []
        self.is_over = False
        self._source = events

    async def read(self) -> None:
        async for event in self._source:
            self.events.append(event)
        self.is_over = True

    @property
    def text(self) -> str:
        return text_of(self.events)


def text_of(events: Iterable[RunEvent]) -> str:
    """All pieces of text, void ones included."""
    return "".join(event.text for event in events)


def kinds_of(events: Iterable[RunEvent]) -> list[str]:
    """Their kinds, with pieces of text that follow each other counted once."""
    kinds: list[str] = []
    for event in events:
        if event.kind != "text" or kinds[-1:] != ["text"]:
            kinds.append(event.kind)
    return kinds


async def all_of(events: AsyncIterator[RunEvent]) -> list[RunEvent]:
    """Everything until the end, without a gap from the first one on."""
    found = [event async for event in events]
    assert [event.seq for event in found] == [*range(found[0].seq, found[0].seq + len(found))] if found else True
    return found


@asynccontextmanager
async def readers() -> AsyncIterator[Callable[[AsyncIterator[RunEvent]], Reading]]:
    """Starts readers, which have come to an end when the block ends."""
    with anyio.fail_after(15):
        async with anyio.create_task_group() as group:

            def start(events: AsyncIterator[RunEvent]) -> Reading:
                reading = Reading(events)
                group.start_soon(reading.read)
                return reading

            yield start


async def said_by(reading: Reading, text: str) -> None:
    """Waits until a reader has seen this much."""
    await until(lambda: reading.text == text, shown=reading.events)
