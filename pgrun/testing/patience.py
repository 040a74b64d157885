"""When the model begins to answer: the wait before the first output, and who can end it early.

A call whose client leaves is cancelled from outside; here a hanging one only waits to be released.
"""

import anyio

from pgrun.testing.answers import Answer, Hang, Worked


class Patience:
    """How long calls wait.

    Attributes:
        delay: Seconds before each answer that does not say otherwise.
        interval: Seconds between two deltas of each answer that does not say otherwise.
    """

    def __init__(self, delay: float, interval: float) -> None:
        self.delay = delay
        self.interval = interval
        self._hanging: set[anyio.CancelScope] = set()

    def takes_time(self, answer: Answer) -> bool:
        """Whether there is anything to wait for."""
        if isinstance(answer, Hang) or self._delay_of(answer) > 0:
            return True
        return isinstance(answer, Worked) and self._interval_of(answer) > 0

    async def hold(self, answer: Answer) -> None:
        """Wait until `answer` is due."""
        if (seconds := self._delay_of(answer)) > 0:
            await anyio.sleep(seconds)
        if isinstance(answer, Hang):
            await self._hang()

    async def pause(self, answer: Worked) -> None:
        """Wait as long as the model takes for the next delta."""
        if (seconds := self._interval_of(answer)) > 0:
            await anyio.sleep(seconds)

    def _delay_of(self, answer: Answer) -> float:
        return self.delay if answer.delay is None else answer.delay

    def _interval_of(self, answer: Worked) -> float:
        return self.interval if answer.interval is None else answer.interval

    async def _hang(self) -> None:
        with anyio.CancelScope() as scope:
            self._hanging.add(scope)
            try:
                await anyio.sleep_forever()
            finally:
                self._hanging.discard(scope)

    def release(self) -> None:
        """Let all calls that hang now go on; call it in the server's event loop."""
        for scope in list(self._hanging):
            scope.cancel()
