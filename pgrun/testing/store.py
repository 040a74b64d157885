"""The responses that the provider keeps: looked up by id, continued by ``previous_response_id``, deleted."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pgrun.testing.request import ModelRequest, RequestRejected
from pgrun.testing.response import usage_body
from pgrun.testing.stream import unfinished
from pgrun.testing.work import Body, Work


@dataclass(frozen=True)
class Stored:
    """A response with the request it answers.

    Attributes:
        background: Whether it goes on without its client.
        kept_at: `time.monotonic()` when it began.
        replay_window: Seconds since then in which it can be streamed again.
        counts_cancelled: Whether it says what it has used if it is cancelled.
    """

    work: Work
    request: ModelRequest
    background: bool
    replay_window: float
    counts_cancelled: bool
    kept_at: float = field(default_factory=time.monotonic)

    def check_streamable(self) -> None:
        """Check that its events can still be had.

        Raises:
            RequestRejected: It was not created as a background stream, or that is too long ago.
        """
        if not (self.background and self.request.streams):
            raise RequestRejected("This response cannot be streamed because it was not created with stream=true.")
        if time.monotonic() - self.kept_at > self.replay_window:
            old = f"it is more than {self.replay_window / 60:g} minutes old"
            raise RequestRejected(f"Response {self.work.id} can no longer be streamed because {old}.")

    def stop(self) -> None:
        """Cancel it; nothing happens if it has ended."""
        if self.work.ended:
            return
        self.work.stop(unfinished(self.work.body, "cancelled"))
        if self.counts_cancelled and self.work.paid is not None:
            self.work.body = {**self.work.body, "usage": usage_body(self.work.paid)}


class Store:
    """All responses of one server that have not been deleted.

    Args:
        replay_window: Seconds in which the events of a background response can be streamed again.
        counts_cancelled: Whether responses that are cancelled say what they have used.
    """

    def __init__(self, replay_window: float, *, counts_cancelled: bool = False) -> None:
        self._stored: dict[str, Stored] = {}
        self._replay_window = replay_window
        self._counts_cancelled = counts_cancelled

    @property
    def bodies(self) -> dict[str, Body]:
        """Every stored Response object by its id, as it is now."""
        return {response_id: stored.work.body for response_id, stored in list(self._stored.items())}

    def keep(self, work: Work, request: ModelRequest, *, background: bool) -> None:
        """Store a response under its id."""
        self._stored[work.id] = Stored(work, request, background, self._replay_window, self._counts_cancelled)

    def find(self, response_id: str) -> Stored:
        """The response with this id.

        Raises:
            RequestRejected: There is none (404).
        """
        if response_id not in self._stored:
            raise RequestRejected(f"Response with id '{response_id}' not found.", status=404)
        return self._stored[response_id]

    def delete(self, response_id: str) -> None:
        """Forget a response; one that is still being worked on is cancelled.

        Raises:
            RequestRejected: There is none (404).
        """
        self.find(response_id).stop()
        del self._stored[response_id]

    def previous(self, request: ModelRequest) -> Stored | None:
        """The response that a request continues, or None if it begins a conversation.

        Raises:
            RequestRejected: It is not there (400).
        """
        response_id = request.body.get("previous_response_id")
        if response_id is None:
            return None
        if response_id not in self._stored:
            message = f"Previous response with id '{response_id}' not found."
            raise RequestRejected(message, param="previous_response_id", code="previous_response_not_found")
        return self._stored[response_id]

    def conversation(self, request: ModelRequest) -> list[dict[str, Any]]:
        """All items the model would read for a request, those of earlier responses first.

        Raises:
            RequestRejected: The response it continues is not there (400).
        """
        turns = list(self._turns(request))
        return [item for turn in reversed(turns) for item in turn]

    def _turns(self, request: ModelRequest) -> Iterator[list[dict[str, Any]]]:
        yield request.items
        previous = self.previous(request)
        while previous is not None:
            yield previous.request.items + previous.work.body["output"]
            following = previous.request.body.get("previous_response_id")
            previous = self._stored.get(following) if following else None
