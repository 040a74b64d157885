"""Keeps a worker's lease from the background thread, and notices when the worker's event loop stands still.

A blocked loop does not lose the lease, because its runs are still being worked on; but it is not hidden either: it is logged
with the line that blocks, and `worker_status` shows for how long.
"""

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from pgrun.db._background import background
from pgrun.db.connected import Connected
from pgrun.db.lifeline import Lifeline, Pulse
from pgrun.settings import Settings

_log = logging.getLogger("pgrun.worker")


class Heartbeat:
    """The lease of one worker id, for as long as the worker lives."""

    def __init__(
        self,
        connected: Connected,
        schema: str,
        settings: Settings,
        worker_id: str,
        *,
        draining: Callable[[], bool],
        on_cancels: Callable[[Sequence[str]], None],
        on_streams: Callable[[Sequence[str]], None],
        on_dead: Callable[[], None],
    ) -> None:
        self._worker_id = worker_id
        self._draining = draining
        self._watch = LoopWatch(connected.runtime.call_soon, settings.loop_blocked_after)
        call_soon = connected.runtime.call_soon
        self._lifeline = Lifeline(
            connected.runtime.address,
            schema,
            Pulse(
                params=self._params,
                on_cancels=lambda run_ids: call_soon(on_cancels, run_ids),
                on_streams=lambda run_ids: call_soon(on_streams, run_ids),
                on_dead=lambda: call_soon(on_dead),
            ),
            lease=settings.lease,
            interval=settings.lease / settings.heartbeats_per_lease,
        )

    def stop(self) -> None:
        """Stops beating; the lease then runs out, unless the worker says goodbye."""
        self._lifeline.cut()
        self._watch.stop()

    def _params(self) -> dict[str, Any]:
        return {"worker_id": self._worker_id, "draining": self._draining(), "blocked": self._watch.blocked_for()}


class LoopWatch:
    """Asks an event loop, from the background thread, whether it still runs."""

    def __init__(self, call_soon: Callable[..., None], patience: float) -> None:
        self._call_soon = call_soon
        self._patience = patience
        self._thread = threading.get_ident()
        self._asked: float | None = None
        self._reported = False
        self._task = background.start(self._ask_forever)

    def stop(self) -> None:
        """Asks no more."""
        self._task.cancel()

    def blocked_for(self) -> float:
        """For how many seconds the loop has not run, 0 if it has not been noticeable."""
        asked = self._asked
        silent = 0.0 if asked is None else time.monotonic() - asked
        return silent if silent > self._patience else 0.0

    async def _ask_forever(self) -> None:
        while True:
            if self._asked is None:
                self._asked = time.monotonic()
                self._call_soon(self._answer)
            elif (blocked_for := self.blocked_for()) and not self._reported:
                self._reported = True
                self._report(blocked_for)
            await anyio.sleep(self._patience / 2)

    def _answer(self) -> None:
        if self._reported and self._asked is not None:
            _log.warning("the event loop runs again after %.1f s", time.monotonic() - self._asked)
        self._asked, self._reported = None, False

    def _report(self, blocked_for: float) -> None:
        frame = sys._current_frames().get(self._thread)
        stack = "".join(traceback.format_stack(frame)) if frame else "(no stack)"
        _log.warning(
            "the event loop has been blocked for %.1f s; runs do not proceed, the lease is kept. It is here:\n%s",
            blocked_for,
            stack,
        )
