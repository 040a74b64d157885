"""Waking those who wait for something to change in the server's event loop."""

import anyio


class Bell:
    """Rung after a change; who waits looks again.

    Each waiter has an event of its own, because a stopped server that is started again has another event loop.
    """

    def __init__(self) -> None:
        self._waiting: set[anyio.Event] = set()

    def ring(self) -> None:
        """Wake all who wait now."""
        for event in self._waiting:
            event.set()

    async def wait(self) -> None:
        """Wait for the next ring; look at what may have changed first, without an `await` in between."""
        event = anyio.Event()
        self._waiting.add(event)
        try:
            await event.wait()
        finally:
            self._waiting.discard(event)
