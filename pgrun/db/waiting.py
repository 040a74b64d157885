"""Callers that wait for runs to end, or to be paused: one subscription and one query for all of them, however many they are.

A waiter registers first and looks at its run afterwards, so an end in between is not missed; whoever has just submitted it,
and has been listening since, need not look. Notifications, reconnects and
the polling interval only decide when to look; what counts is the row.
"""

import logging
import math
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import suppress

import anyio

from pgrun import events
from pgrun._jitter import uniform
from pgrun.db._connection import Row
from pgrun.db._runtime import Runtime
from pgrun.errors import PgrunError, RunNotFound, UsageError
from pgrun.settings import Settings

_log = logging.getLogger("pgrun.db")

_LOOK_AT_ONCE = 1000  # runs per statement
_EXPIRE_POLLS = (
    6  # so many times as seldom as they look for results, callers end what has expired: workers do it in time
)
_REMEMBERED = 5000  # ends


class Waiting:
    """The waiters of one event loop; a `listener.Subscriber`."""

    def __init__(self, runtime: Runtime, settings: Settings) -> None:
        self._runtime = runtime
        self._settings = settings
        self._waiters: dict[str, list[_Waiter]] = {}
        self._asked: set[str] = set()
        self._look = anyio.Event()
        self._listening_since = math.inf
        self._expired_at = 0.0
        self._heard: dict[str, None] = {}  # the runs that were last heard to have ended, the oldest first

    async def wait(
        self, run_ids: Sequence[str], *, first: bool = False, or_paused: bool = False, since: float = 0.0
    ) -> dict[str, Row]:
        """Waits until all of these runs have ended, or with `first` one of them; returns the rows of those that have.

        Args:
            run_ids: The runs.
            first: Whether one is enough.
            or_paused: Whether one that is paused counts as one that has ended.
            since: None of them had ended then, on the clock of `time.monotonic`. If we have been listening ever since and
                heard nothing of them, there is no need to look first.

        Raises:
            RunNotFound: One of them does not exist.
            DatabaseUnavailable: The database was lost and did not come back in time.
        """
        waiter = self._register(_Waiter(set(run_ids), first, or_paused))
        if self._listening_since >= since or any(run_id in self._heard for run_id in waiter.open):
            self._ask(waiter.open)
        try:
            await waiter.ended.wait()
        finally:
            self._forget(waiter, run_ids)
        if waiter.error is not None:
            raise waiter.error
        return waiter.rows

    async def each(self, run_ids: Sequence[str], deadline: float) -> AsyncGenerator[Row, None]:
        """The rows of these runs in the order in which they end; ends early at the deadline, on the clock of the event loop.

        Raises:
            RunNotFound: One of them does not exist.
            DatabaseUnavailable: The database was lost and did not come back in time.
        """
        waiter = self._register(_Waiter(set(run_ids), True, False))
        self._ask(waiter.open)
        try:
            while waiter.open:
                with anyio.move_on_after(deadline - anyio.current_time()):
                    await waiter.ended.wait()
                if waiter.error is not None:
                    raise waiter.error
                if not waiter.rows:
                    return
                for row in waiter.take():
                    yield row
        finally:
            self._forget(waiter, run_ids)

    def _register(self, waiter: "_Waiter") -> "_Waiter":
        for run_id in waiter.open:
            self._waiters.setdefault(run_id, []).append(waiter)
        return waiter

    async def serve(self) -> None:
        """Looks at runs whenever there is a reason to; runs for as long as the loop does."""
        polled_at = anyio.current_time()
        while True:
            # From poll to poll, not from look to look: where there is always something to look at, whoever was forgotten
            # would wait for ever.
            poll_at = polled_at + self._interval()
            with anyio.CancelScope(deadline=poll_at):
                await self._look.wait()
            self._look = anyio.Event()
            asked, self._asked = self._asked, set()
            run_ids = [run_id for run_id in asked if run_id in self._waiters]
            if anyio.current_time() >= poll_at:
                polled_at = anyio.current_time()
                run_ids = [*self._waiters]
            for start in range(0, len(run_ids), _LOOK_AT_ONCE):
                await self._look_at(run_ids[start : start + _LOOK_AT_ONCE])
            await self._expire()

    def on_wake(self, queue: str) -> None:
        """Waiters do not care for new work."""

    def on_soon(self, queue: str) -> None:
        """Nor for what will be due."""

    def on_cancel(self, run_id: str) -> None:
        """Waiters hear of a cancelled run when it has ended."""

    def on_watch(self, run_id: str) -> None:
        """Waiters do not read."""

    def on_done(self, run_ids: Sequence[str]) -> None:
        """Called in the listener's thread; most runs that end are awaited elsewhere and cost two look-ups here."""
        # Noted first and looked up afterwards, while a waiter registers first and looks here afterwards.
        for run_id in run_ids:
            self._heard[run_id] = None
        while len(self._heard) > _REMEMBERED:
            del self._heard[next(iter(self._heard))]
        if mine := [run_id for run_id in run_ids if run_id in self._waiters]:
            self._runtime.call_soon(self._ask, mine)

    def on_state(self, listening: bool) -> None:
        """Called in the listener's thread."""
        self._runtime.call_soon(self._set_listening, listening)

    def _set_listening(self, listening: bool) -> None:
        self._listening_since = time.monotonic() if listening else math.inf
        self._ask([*self._waiters])  # whatever ended meanwhile was not heard

    def _ask(self, run_ids: Iterable[str]) -> None:
        self._asked.update(run_ids)
        self._look.set()

    def _interval(self) -> float:
        settings = self._settings
        interval = settings.poll_interval if self._listening_since < math.inf else settings.poll_interval_without_listen
        return interval * uniform(0.9, 1.1)

    async def _look_at(self, run_ids: list[str]) -> None:
        # Who comes while the database looks may have made the run go on: that it was paused is old news to them.
        or_paused = {
            run_id: some
            for run_id in run_ids
            if (some := [each for each in self._waiters.get(run_id, ()) if each.or_paused])
        }
        try:
            rows = await self._runtime.fetch("look_at_runs", {"run_ids": run_ids, "or_paused": [*or_paused]})
        except PgrunError as error:
            _log.warning("%s waiting callers get: %s", len(run_ids), error)
            for run_id in run_ids:
                for waiter in self._waiters.pop(run_id, ()):
                    waiter.fail(error)
            return
        for row in rows:
            run_id = str(row["asked"])
            events.emit("woken", run_id=run_id)
            is_paused = row["status"] == "paused"
            for waiter in or_paused.get(run_id, ()) if is_paused else self._waiters.pop(run_id, ()):
                waiter.settle(run_id, row)

    async def _expire(self) -> None:
        """Ends runs whose time is up: workers do that, but where there is none, callers must not wait for ever.

        Those that it ends are looked at when they are heard of, or with the next poll.
        """
        if not self._waiters or time.monotonic() < self._expired_at + _EXPIRE_POLLS * self._settings.poll_interval:
            return
        self._expired_at = time.monotonic()
        with suppress(PgrunError):  # the next look says so
            await self._runtime.fetch_tuples("expire_runs", {})

    def _forget(self, waiter: "_Waiter", run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            if waiters := self._waiters.get(run_id):
                waiters[:] = [other for other in waiters if other is not waiter]
                if not waiters:
                    del self._waiters[run_id]


class _Waiter:
    """One caller and the runs it waits for."""

    def __init__(self, run_ids: set[str], first: bool, or_paused: bool) -> None:
        self.open = run_ids
        self.or_paused = or_paused
        self.rows: dict[str, Row] = {}
        self.error: PgrunError | None = None
        self.ended = anyio.Event()
        self._first = first
        if not run_ids:
            self.ended.set()

    def settle(self, run_id: str, row: Row) -> None:
        if row["run_id"] is None:
            self.fail(not_found(run_id))
            return
        self.open.discard(run_id)
        self.rows[run_id] = row
        if self._first or not self.open:
            self.ended.set()

    def take(self) -> Iterable[Row]:
        """What has ended since it was taken last."""
        rows, self.rows = self.rows, {}
        self.ended = anyio.Event()
        return rows.values()

    def fail(self, error: PgrunError) -> None:
        self.error = error
        self.ended.set()


def not_found(run_id: str) -> RunNotFound:
    """What a caller is told who waits for a run that does not exist."""
    return RunNotFound(f"no run {run_id} exists", run_id=run_id)


def check_timeout(timeout: float | None) -> None:
    """Raises `UsageError` for a time-out that is negative or not a number."""
    if timeout is not None and not timeout >= 0:
        raise UsageError(f"timeout={timeout!r}: seconds to wait, 0 or more; None waits as long as it takes")
