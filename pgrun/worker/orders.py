"""How urgently a process of `pgrun worker` has been told to go: by signals, by its supervisor, whoever asks for more.

Counting each of them for itself matters: Ctrl-C and systemd reach a supervisor and its workers alike, and what the supervisor
then passes on is no second demand.
"""

import signal
from collections.abc import AsyncIterator
from enum import IntEnum

import anyio

PATIENCE = 30.0
"""Seconds beyond its grace after which a worker process is ended: as long as it may take to give runs back to a database
that is away."""

LAST_WORD = 3.0
"""Seconds after a second signal until a worker process ends, whatever it still waits for."""


class Urgency(IntEnum):
    """What has been asked for."""

    STAY = 0
    DRAIN = 1
    STOP = 2


class Orders:
    """The most urgent order so far; it never becomes less."""

    def __init__(self) -> None:
        self.urgency = Urgency.STAY
        self._reason = ""
        self._raised = anyio.Event()

    def give(self, urgency: Urgency, reason: str) -> None:
        """Raises the urgency, if it is lower; `reason` is for the log. Called on the event loop."""
        if urgency > self.urgency:
            self.urgency, self._reason = urgency, reason
            self._raised.set()
            self._raised = anyio.Event()

    async def at_least(self, urgency: Urgency) -> str:
        """Waits for an order as urgent as this, and returns its reason."""
        while self.urgency < urgency:
            await self._raised.wait()
        return self._reason

    async def heed(self, signals: AsyncIterator[signal.Signals]) -> None:
        """Takes the first signal for DRAIN and every further one for STOP, until it is cancelled."""
        async for received in signals:
            self.give(Urgency.DRAIN, received.name)
            async for again in signals:
                self.give(Urgency.STOP, f"{again.name} again")
