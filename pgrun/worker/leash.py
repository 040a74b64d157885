"""What ties a worker process to its supervisor: a socket on which orders come down, and "I serve" goes up, once.

When the supervisor is gone, however it died, the kernel closes its end, and the worker drains as after SIGTERM. A thread holds
the worker's end, so that no blocked event loop and no import that hangs leaves an orphan behind.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable

from pgrun.errors import UsageError
from pgrun.worker.orders import PATIENCE, Orders, Urgency

_log = logging.getLogger("pgrun.worker")


class Leash:
    """The worker's end. Until it follows, it holds no runs, and any order ends the process on the spot.

    Args:
        fd: The file descriptor that the supervisor has passed on.
        grace: Seconds for which the worker drains; an orphan that is still there long after them is ended.

    Raises:
        UsageError: There is no socket at `fd`.
    """

    def __init__(self, fd: int, *, grace: float) -> None:
        try:
            self._socket = socket.socket(fileno=fd)
        except OSError as error:
            raise UsageError(f"--leash {fd}: {error}; the option is for the workers of a supervisor") from error
        self._socket.set_inheritable(False)  # what the worker starts is not the supervisor's business
        self._grace = grace
        self._obey: Callable[[Urgency, str], None] | None = None
        self._obeying = threading.Lock()
        threading.Thread(target=self._hear, name="pgrun-leash", daemon=True).start()

    def follow(self, orders: Orders, call_soon: Callable[..., None]) -> None:
        """From now on what the supervisor says goes to `orders`, on their event loop."""
        with self._obeying:
            self._obey = lambda urgency, reason: call_soon(orders.give, urgency, reason)

    def say_ready(self) -> None:
        """Tells the supervisor that this worker serves."""
        try:
            self._socket.send(b"\1")
        except OSError:
            _log.debug("nobody is there to hear that this worker serves")

    def _hear(self) -> None:
        with self._socket:
            while word := self._receive():
                self._pass_on(Urgency(word[0]), "the supervisor says so")
        self._pass_on(Urgency.DRAIN, "the supervisor is gone")
        time.sleep(self._grace + PATIENCE)
        os._exit(1)

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(1)
        except OSError:  # reset: the supervisor went before it had read what it was told
            return b""

    def _pass_on(self, urgency: Urgency, reason: str) -> None:
        with self._obeying:
            if self._obey is None:
                os._exit(0)
            self._obey(urgency, reason)
