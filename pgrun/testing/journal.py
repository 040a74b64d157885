"""What the server has been asked, and what became of it: written by `desk` and `endpoint`, read by tests.

A call is `open` from the moment its request has been read until one of three things ends it.
"""

import threading
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import anyio

from pgrun.testing.bell import Bell

Outcome = Literal["open", "answered", "aborted", "dropped"]
"""open: under way; answered; aborted: the client disconnected first; dropped: the server closed without an answer."""


@dataclass(frozen=True)
class Call:
    """One request and what became of it; a snapshot that does not change any more.

    Attributes:
        number: 1 for the server's first call.
        model: The model asked for, "" where the request has none.
        text: The last user message, "" where there is none.
        body: The request's JSON object, {} where it was none.
        headers: The request's headers, names in lower case.
        received_at: `time.monotonic()` when the request had been read.
        outcome: How far it got.
        status: The HTTP status of the answer, None without one.
        answered_at: `time.monotonic()` just before the answer's last byte went out, None without an answer.
        response_id: The id of the answer a model worked on, None where no model did.
    """

    number: int
    model: str
    text: str
    body: dict[str, Any] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)  # may hold a real key that must not end up in a test report
    received_at: float
    outcome: Outcome = "open"
    status: int | None = None
    answered_at: float | None = None
    response_id: str | None = None


@dataclass(frozen=True)
class Lookup:
    """One request that asked no model, for example a stored response was retrieved, cancelled or deleted.

    Attributes:
        method: GET, POST or DELETE.
        path: What came after the host.
        query: The parameters after that, for example ``{"stream": "true", "starting_after": "7"}``.
        status: The HTTP status of the answer, None without one.
    """

    method: str
    path: str
    query: Mapping[str, str]
    status: int | None


class Journal:
    """All calls of one server, in the order they arrived."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._lookups: list[Lookup] = []
        self._lock = threading.Lock()
        self._bell = Bell()

    @property
    def calls(self) -> list[Call]:
        """All calls so far, as they are now."""
        with self._lock:
            return list(self._calls)

    @property
    def lookups(self) -> list[Lookup]:
        """All requests so far that asked no model."""
        with self._lock:
            return list(self._lookups)

    def note_lookup(self, method: str, path: str, query: Mapping[str, str], status: int | None) -> None:
        """Enter a request that asks no model, just before its answer goes out."""
        with self._lock:
            self._lookups.append(Lookup(method, path, query, status))
        self._bell.ring()

    def open(self, **facts: Any) -> Call:
        """Enter a call that has just been received."""
        with self._lock:
            call = Call(number=len(self._calls) + 1, **facts)
            self._calls.append(call)
        self._bell.ring()
        return call

    def identify(self, call: Call, response_id: str) -> None:
        """Enter which response a model makes for a call."""
        with self._lock:
            at = call.number - 1
            self._calls[at] = replace(self._calls[at], response_id=response_id)

    def close(
        self, call: Call, outcome: Outcome, *, status: int | None = None, answered_at: float | None = None
    ) -> None:
        """Enter how a call ended; the first ending stands."""
        with self._lock:
            entered = self._calls[call.number - 1]
            if entered.outcome != "open":
                return
            ended = replace(entered, outcome=outcome, status=status, answered_at=answered_at)
            self._calls[call.number - 1] = ended
        self._bell.ring()

    def drop_open_calls(self) -> None:
        """Enter for every call still open that the server left it without an answer."""
        for call in self.calls:
            self.close(call, "dropped")

    async def wait(self, count: int, outcome: Outcome | None, timeout: float) -> list[Call]:
        """Wait for `count` calls with this outcome, or with any; runs in the server's event loop.

        Raises:
            TimeoutError: They did not arrive within `timeout` seconds.
        """
        wanted = f"{count} calls" if outcome is None else f"{count} {outcome} calls"
        if await self._come_to(count, lambda: self._with(outcome), timeout):
            return self._with(outcome)
        raise TimeoutError(f"the model server did not see {wanted} within {timeout:g} s, only {self.calls}")

    async def wait_for_lookups(self, count: int, timeout: float) -> list[Lookup]:
        """Wait for `count` requests that ask no model; runs in the server's event loop.

        Raises:
            TimeoutError: They did not arrive within `timeout` seconds.
        """
        if await self._come_to(count, lambda: self.lookups, timeout):
            return self.lookups
        words = f"did not see {count} lookups within {timeout:g} s, only {self.lookups}"
        raise TimeoutError(f"the model server {words}")

    async def _come_to(self, count: int, found: Callable[[], Sized], timeout: float) -> bool:
        with anyio.move_on_after(timeout):
            while len(found()) < count:
                await self._bell.wait()
            return True
        return False

    def _with(self, outcome: Outcome | None) -> list[Call]:
        return [call for call in self.calls if outcome is None or call.outcome == outcome]
