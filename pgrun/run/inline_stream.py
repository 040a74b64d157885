"""A foreground run without a database whose events are read while it goes on; nothing is stored."""

import asyncio  # noqa: TID251  a generator cannot hold a task group open while it yields
from collections import deque
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import anyio

from pgrun.run.definition import AgentDefinition
from pgrun.run.event import EventReader, RunEvent, Shape
from pgrun.run.inline import execute_here
from pgrun.run.options import Choices
from pgrun.run.output import OutputSchema
from pgrun.run.partial import shape_of
from pgrun.run.stream import Stream


async def stream_here(
    name: str, definition: AgentDefinition, schema: OutputSchema[Any] | None, data: Any, choices: Choices
) -> AsyncGenerator[RunEvent, None]:
    """Executes a run and tells its events; left early, it is stopped.

    Raises:
        RunFailed: Its last attempt failed; the cause says how.
    """
    stream = _Heard(choices.run_id, shape_of(schema))
    run = asyncio.create_task(execute_here(name, definition, schema, data, choices, stream))
    run.add_done_callback(lambda _: stream.arrived.set())
    try:
        while stream.events or not run.done():
            if stream.events:
                yield stream.events.popleft()
            else:
                await stream.arrived.wait()
                stream.arrived = anyio.Event()
        await run
    finally:
        run.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([run])
        if not run.cancelled():
            run.exception()  # or asyncio complains that nobody asked for it


class _Heard(Stream):
    """Keeps what is told for the one who reads."""

    wants_text = True

    def __init__(self, run_id: str, shape: Shape) -> None:
        super().__init__()
        self.events: deque[RunEvent] = deque()
        self.arrived = anyio.Event()
        self._reader = EventReader(run_id, shape)
        self._seq = self._attempt = 0

    def tell(self, kind: str, **data: Any) -> None:
        self._seq += 1
        self._attempt += kind == "started"
        self.events.append(self._reader.read(self._seq, kind, data, self._attempt, datetime.now(UTC)))
        self.arrived.set()
