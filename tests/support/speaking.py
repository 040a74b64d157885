"""A model that says its answers piece by piece, as a test wants it, and what readers have seen of them."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any

import anyio

from pgrun import RunEvent
from pgrun.errors import AttemptError
from pgrun.models.base import ModelRequest, ModelResponse
from support.models import USAGE

LISTENERS = """select count(*) from pg_stat_activity
                where datname = current_database() and query = 'listen "pgrun_events"'"""
"""How many processes listen for events; true until ten seconds after the last of them."""

Item = str | anyio.Event | ModelResponse | AttemptError


class SpeakingModel:
    """Follows a script, which all its calls share.

    Args:
        script: A text is said as a piece of the answer, an event is waited for, a response ends the call with all that was
            said in it, an error ends it too; at the end of the script so does `USAGE`.
    """

    provider = "speaking"
    id = "speaking"

    def __init__(self, *script: Item) -> None:
        self.asked: list[ModelRequest] = []
        self.is_stopped = False
        self._script = iter(script)

    def definition(self) -> dict[str, Any]:
        return {"provider": self.provider, "id": self.id}

    async def call(self, request: ModelRequest) -> ModelResponse:
        self.asked.append(request)
        said = ""
        for item in self._script:
            match item:
                case str():
                    said += item
                    request.watch.text(item)
                case ModelResponse():
                    return replace(item, text=said or item.text)
                case AttemptError():
                    raise item
                case _:
                    await self._wait(item)
        return ModelResponse(said, usage=USAGE)

    async def _wait(self, event: anyio.Event) -> None:
        try:
            await event.wait()
        except BaseException:
            self.is_stopped = True
            raise


ANSWERED = ModelResponse("", usage=USAGE)


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
