"""When a call gets its answer: the wait between `script` and `response`, and who can end it early.

Each waiting call listens for its client's disconnect meanwhile. The wait is one cancel scope around that listening: a
deadline makes it a delay, no deadline makes it a hanging call, and cancelling the scope releases it.
"""

from typing import TYPE_CHECKING

import anyio

from pgrun.testing.answers import Answer, Hang

if TYPE_CHECKING:
    from starlette.types import Receive


class Patience:
    """How long calls wait.

    Attributes:
        delay: Seconds before each answer that does not say otherwise.
    """

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self._hanging: set[anyio.CancelScope] = set()

    async def hold(self, answer: Answer, receive: "Receive") -> bool:
        """Wait until `answer` is due: True then, False as soon as the client has gone."""
        seconds = self.delay if answer.delay is None else answer.delay
        if seconds > 0 and not await _stays(receive, anyio.CancelScope(deadline=anyio.current_time() + seconds)):
            return False
        return not isinstance(answer, Hang) or await self._hang(receive)

    async def _hang(self, receive: "Receive") -> bool:
        scope = anyio.CancelScope()
        self._hanging.add(scope)
        try:
            return await _stays(receive, scope)
        finally:
            self._hanging.discard(scope)

    def release(self) -> None:
        """Let all calls that hang now go on; call it in the server's event loop."""
        for scope in list(self._hanging):
            scope.cancel()


async def _stays(receive: "Receive", scope: anyio.CancelScope) -> bool:
    with scope:
        while (await receive())["type"] != "http.disconnect":
            pass
    return scope.cancelled_caught
