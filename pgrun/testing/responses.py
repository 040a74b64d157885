"""The Responses API: what its requests have to look like, and what it makes of a reply.

`desk` takes calls for it, `lookups` serves what it has stored.
"""

import json
from typing import Any, Literal

from pgrun.testing.acceptance import FormatNames, check_format, check_types
from pgrun.testing.answers import HttpError, Reply
from pgrun.testing.request import ModelRequest, RequestRejected, missing
from pgrun.testing.response import response_body, usage_of
from pgrun.testing.store import Store
from pgrun.testing.stream import events, unfinished
from pgrun.testing.tools import check_outputs, check_tools
from pgrun.testing.work import Plan, Step, Work

BackgroundMode = Literal["offered", "rejected", "ignored"]
"""What an endpoint makes of ``background: true``: the provider offers it; compatible servers answer 400 or ignore it."""

_TYPES: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "input": (str, list),
    "instructions": (str, list),
    "tools": (list,),
    "tool_choice": (str, dict),
    "parallel_tool_calls": (bool,),
    "previous_response_id": (str,),
    "text": (dict,),
    "max_output_tokens": (int,),
    "metadata": (dict,),
    "stream": (bool,),
    "background": (bool,),
    "store": (bool,),
}
# Any of these says what to answer; a request has to have one.
_SOURCES = ("input", "previous_response_id", "prompt", "conversation")
_FORMAT_NAMES = FormatNames("text.format", "text.format", "text.format.schema", "invalid_json_schema")


class ResponsesApi:
    """``POST /v1/responses``."""

    path = "/v1/responses"

    def __init__(self, store: Store, background: BackgroundMode) -> None:
        self._store = store
        self._background = background

    def read(self, body: dict[str, Any]) -> ModelRequest:
        """The request with this body."""
        return ModelRequest(body)

    def check(self, request: ModelRequest) -> None:
        """Check everything about a request but its key.

        Raises:
            RequestRejected: The provider would not accept it.
        """
        _check_given(request.body)
        check_types(request.body, _TYPES)
        self._check_background(request.body)
        check_format(request.output_format, _FORMAT_NAMES)
        check_tools(request)
        check_outputs(self._store.conversation(request))

    def plan(self, request: ModelRequest, reply: Reply, deltas: int) -> Plan:
        """What leads to this reply."""
        usage = usage_of(reply, request, self._context_tokens(request))
        final = response_body(reply, request, usage, background=self.goes_on_alone(request))
        opening, output = events(final, deltas)
        first = unfinished(final, opening[0].event["response"]["status"])
        return Plan(final["id"], first, opening, output, usage, replayed=self.goes_on_alone(request))

    def keep(self, request: ModelRequest, work: Work) -> None:
        """Store what the request wants stored."""
        if request.body.get("store") is not False:
            self._store.keep(work, request, background=self.goes_on_alone(request))

    def abandon(self, work: Work) -> None:
        """End what has lost its client."""
        work.stop(unfinished(work.body, "cancelled"))

    def goes_on_alone(self, request: ModelRequest) -> bool:
        """Whether the model works on when the client has gone."""
        return bool(request.body.get("background")) and self._background == "offered"

    @staticmethod
    def frame(step: Step) -> bytes:
        """A step as a server-sent event."""
        return f"event: {step.event['type']}\ndata: {json.dumps(step.event)}\n\n".encode()

    @staticmethod
    def error_event(error: HttpError, number: int) -> dict[str, Any]:
        """What a stream that breaks with an error sends as event `number`, its last."""
        return {
            "type": "error",
            "code": error.code,
            "message": error.message,
            "param": error.param,
            "sequence_number": number,
        }

    def _check_background(self, body: dict[str, Any]) -> None:
        if not body.get("background"):
            return
        if self._background == "rejected":
            message = "Unsupported parameter: 'background' is not supported with this model."
            raise RequestRejected(message, param="background", code="unsupported_parameter")
        if self._background == "offered" and body.get("store") is False:
            message = "Background mode needs the response to be stored: 'store' must not be false."
            raise RequestRejected(message, param="store", code="invalid_value")

    def _context_tokens(self, request: ModelRequest) -> int:
        previous = self._store.previous(request)
        usage = previous.work.body["usage"] if previous else None
        return int(usage["total_tokens"]) if usage else 0


def _check_given(body: dict[str, Any]) -> None:
    if not body.get("model"):
        raise missing("model")
    if all(body.get(source) is None for source in _SOURCES):
        raise missing("input")
