"""One call of the Responses API: asked, read as it comes, and had again by its id when the connection or a process was lost.

An answer in background mode is the provider's own affair once its first event has told the id: whatever breaks then, here or on
the way, it is asked for under that id and never anew. Its stream is taken up again after the last event that was seen; where
that is not possible (any more), it is looked at until it has ended.
"""

import logging
import math
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio

from pgrun.errors import AnswerQueued, AttemptError, ModelCallLost, ModelRejected, ModelUnavailable
from pgrun.models._openai_client import Endpoint, in_our_words
from pgrun.models._openai_failures import told_in_stream, uncertain
from pgrun.models._openai_reply import events, is_stream, rate_limits, read_out, whole
from pgrun.models._openai_teller import Teller
from pgrun.models.base import Watch

if TYPE_CHECKING:
    from openai._legacy_response import LegacyAPIResponse
    from openai.types.responses import Response

_log = logging.getLogger("pgrun.models")

_UNFINISHED = ("queued", "in_progress")
_LAST = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")

# Seconds between looks at an answer that has not ended and cannot be streamed.
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 15.0

_OUT_OF_REACH = 60.0  # seconds without any word of the provider after which the attempt ends; the next one goes on
_GLANCE = 1.0  # seconds at most for which an answer that was queued before is looked at again
_LAST_WORD = 5.0  # seconds in which the provider has to confirm that it leaves an answer off


class ResponsesCall:
    """An answer on its way.

    Args:
        endpoint: Where.
        watch: Who hears of it.
        timeout: Seconds a server may be silent.

    Attributes:
        response_id: Under which it can be had, once the provider goes on with it by itself.
        rate_limits: As in `ModelResponse`.
        teller: Tells the watch.
    """

    def __init__(self, endpoint: Endpoint, watch: Watch, *, timeout: float) -> None:
        self.response_id: str | None = None
        self.rate_limits: dict[str, float] | None = None
        self.teller = Teller(watch)
        self._endpoint = endpoint
        self._watch = watch
        self._timeout = timeout
        self._reached: int | None = None  # sequence number of the last event seen
        self._pause = _FIRST_PAUSE
        self._patience = watch.patience
        self._waiting = anyio.CancelScope()  # of the call that is under way

    async def ask(self, body: dict[str, Any]) -> Any:
        """Asks, and returns the `Response` when it has ended; or whatever else the server sent.

        Raises:
            AnswerQueued: The provider has not begun with it for as long as the watch has patience.
            AttemptError: Nothing was begun, nobody knows, or the provider is out of reach; `answer` says which.
        """
        with anyio.CancelScope() as self._waiting:
            try:
                with in_our_words(self._endpoint):
                    found = await self._read(await self._api.create(**body, timeout=self._timeout))
            except AttemptError as error:
                if self.response_id is None:
                    raise
                _log.info("the stream of %s broke and is taken up again: %s", self.response_id, error)
                found = None
            return await self._go_on() if found is None else found
        raise self._queued()

    async def attach(self, response_id: str) -> Any:
        """The `Response` of that id when it has ended.

        Raises:
            ModelCallLost: There is none.
            AnswerQueued: As from `ask`, after a glance.
            AttemptError: The provider is out of reach.
        """
        self.response_id = response_id
        self._patience = min(self._patience, _GLANCE)
        with anyio.CancelScope() as self._waiting:
            return await self._go_on()
        raise self._queued()

    async def stop(self) -> Any:
        """Has the provider leave the answer off, and returns the `Response` as it is then; None if there is none to leave off.

        Raises:
            AttemptError: The provider could not be told in time.
        """
        try:
            with anyio.move_on_after(_LAST_WORD, shield=True), in_our_words(self._endpoint):
                return await _whole_response(await self._api.cancel(self.response_id, timeout=_LAST_WORD))
        except ModelRejected:
            return None
        raise ModelUnavailable(f"{self._endpoint.base_url} does not confirm that it leaves off {self.response_id}")

    @property
    def _api(self) -> Any:
        return self._endpoint.client.responses.with_raw_response

    async def _go_on(self) -> Any:
        streams = can_stream = True
        silent_since: float | None = None
        while True:
            seen = self._reached
            try:
                found = await self._look(streams)
            except ModelUnavailable as error:
                silent_since = time.monotonic() if silent_since is None or self._reached != seen else silent_since
                if time.monotonic() - silent_since > _OUT_OF_REACH:
                    raise _pending(error) from error.__cause__
                _log.info("%s is out of reach and looked for again: %s", self.response_id, error)
                await self._rest(at_least=error.retry_after or 0.0)
            except ModelCallLost:
                raise
            except AttemptError as error:
                if not streams:
                    raise _pending(error) from error.__cause__
                streams = can_stream = False  # not streamed in the first place, or too old for that
            else:
                if found is not None:
                    return found
                silent_since = None
                if self._reached != seen:  # the stream was cut again, but brought it further
                    self._pause = _FIRST_PAUSE
                elif streams:  # nothing more came: perhaps it ended in a way of which no event tells
                    streams = False
                else:
                    await self._rest()
                    streams = can_stream

    async def _rest(self, *, at_least: float = 0.0) -> None:
        await anyio.sleep(min(max(self._pause, at_least), _LONGEST_PAUSE))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    async def _look(self, streams: bool) -> Any:
        """The `Response`, if it has ended; looks on as long as its stream lasts."""
        assert self.response_id is not None
        with in_our_words(self._endpoint):
            if streams:
                more = {} if self._reached is None else {"starting_after": self._reached}
                stream = await self._api.retrieve(self.response_id, stream=True, timeout=self._timeout, **more)
                return await self._read(stream)
        try:
            with in_our_words(self._endpoint):
                return await self._read(await self._api.retrieve(self.response_id, timeout=self._timeout))
        except ModelRejected as error:
            words = f"{self._endpoint.base_url} has no answer {self.response_id} (any more): {error}"
            raise ModelCallLost(words, **{**error.details, "response_id": self.response_id}) from error

    async def _read(self, raw: "LegacyAPIResponse[Any]") -> Any:
        """The `Response` that has ended; None if it goes on, or was cut although it goes on."""
        self.rate_limits = rate_limits(raw.headers) or self.rate_limits
        if is_stream(raw):
            return await self._follow(raw)
        response = await _whole_response(raw)
        goes_on = getattr(response, "status", None) in _UNFINISHED and self._goes_on(response)
        self._heed(response)
        return None if goes_on else response

    async def _follow(self, raw: "LegacyAPIResponse[Any]") -> Any:
        async with aclosing(events(raw)) as stream:
            async for event in stream:
                if (found := self._hear(event)) is not None:
                    await read_out(stream)
                    return found
        if self.response_id is None:
            raise uncertain(ModelUnavailable(f"{self._endpoint.base_url} cut the answer off", code="cut"))
        return None

    def _hear(self, event: dict[str, Any]) -> Any:
        """The `Response`, if this is the last event."""
        number, kind, body = event.get("sequence_number"), event.get("type"), event.get("response")
        if kind == "error":  # of this stream, not of the answer: its number may be another event's
            raise told_in_stream(event, self._endpoint.base_url)
        if isinstance(number, int):
            if self._reached is not None and number <= self._reached:
                return None  # a server that knows no starting_after
            self._reached = number
        self.teller.tell(event)
        if not isinstance(body, dict):
            return None
        response = _constructed(body)
        if kind not in _LAST:
            self._goes_on(response)
        self._heed(response)
        return response if kind in _LAST else None

    def _heed(self, response: Any) -> None:
        """Waits with patience only as long as the provider has not begun."""
        if getattr(response, "status", None) != "queued":
            self._waiting.deadline = math.inf
        elif self.response_id is not None and self._waiting.deadline == math.inf:
            self._waiting.deadline = anyio.current_time() + self._patience

    def _queued(self) -> AnswerQueued:
        return AnswerQueued(f"{self._endpoint.base_url} has not begun with {self.response_id} yet")

    def _goes_on(self, response: "Response") -> bool:
        """Whether the provider goes on with it by itself; the watch is told so once."""
        if self.response_id is None and getattr(response, "background", None) and isinstance(response.id, str):
            self.response_id = response.id
            self._watch.created(response.id)
        return self.response_id is not None


def _pending(error: AttemptError) -> AttemptError:
    """The same, about an answer that is there or under way all the same."""
    error.answer = "pending"
    return error


async def _whole_response(raw: "LegacyAPIResponse[Any]") -> Any:
    """A `Response`, or whatever else was sent."""
    data = await whole(raw)
    return _constructed(data) if isinstance(data, dict) else data


def _constructed(body: dict[str, Any]) -> "Response":
    """As the SDK hands one out: made of whatever came, without validation."""
    from openai.types.responses import Response

    response: Response = Response.construct(**body)
    return response
