"""Where a call is taken: would the provider accept it, which answer does the script have, and a model sets to work.

`endpoint` brings the calls that come over HTTP.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias
from uuid import uuid4

from pgrun.testing.acceptance import check_key
from pgrun.testing.answers import Disconnect, HttpError, Reply, Worked
from pgrun.testing.bill import Bill
from pgrun.testing.journal import Call, Journal
from pgrun.testing.limits import Meter
from pgrun.testing.makeup import reply_to
from pgrun.testing.patience import Patience
from pgrun.testing.request import ModelRequest, RequestRejected
from pgrun.testing.response import input_tokens
from pgrun.testing.script import Script
from pgrun.testing.work import Plan, Step, Work

Gets: TypeAlias = Work | HttpError | Disconnect

StreamMode = Literal["offered", "rejected", "ignored"]
"""What an endpoint makes of ``stream: true``: the provider streams; some servers answer 400, or with the whole answer."""


class Api(Protocol):
    """One way of asking a model."""

    @property
    def path(self) -> str:
        """Where it is asked."""

    def read(self, body: dict[str, Any]) -> ModelRequest:
        """The request with this body."""

    def check(self, request: ModelRequest) -> None:
        """Raises `RequestRejected` if the provider would not accept it."""

    def plan(self, request: ModelRequest, reply: Reply, deltas: int) -> Plan:
        """What leads to this reply."""

    def keep(self, request: ModelRequest, work: Work) -> None:
        """Store what the request wants stored."""

    def abandon(self, work: Work) -> None:
        """End what has lost its client."""

    def goes_on_alone(self, request: ModelRequest) -> bool:
        """Whether the model works on when the client has gone."""

    def frame(self, step: Step) -> bytes:
        """A step as a server-sent event."""

    def error_event(self, error: HttpError, number: int) -> dict[str, Any]:
        """What a stream that breaks with an error sends as event `number`, its last."""


@dataclass(frozen=True)
class Taken:
    """A call that has been taken, and what it gets, with these headers."""

    call: Call
    request: ModelRequest
    gets: Gets
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Desk:
    """What decides about calls, and what it writes down."""

    script: Script
    journal: Journal
    patience: Patience
    bill: Bill
    meter: Meter
    streams: StreamMode = "offered"

    def take(self, api: Api, body: dict[str, Any] | None, headers: Mapping[str, str]) -> Taken:
        """Enter a call into the journal, and decide what it gets; `body` is None if it was no JSON object."""
        request = api.read(self._heeded(body or {}))
        call = self.journal.open(
            model=request.model,
            text=request.user_text,
            body=body or {},
            headers=headers,
            received_at=time.monotonic(),
        )
        gets = self._decide(api, request if body is not None else None, call)
        own = {"x-request-id": f"req_{uuid4().hex}", **self.meter.headers(request.model)}
        return Taken(call, request, gets, own)

    def _decide(self, api: Api, request: ModelRequest | None, call: Call) -> Gets:
        try:
            check_key(call.headers)
            if request is None:
                raise RequestRejected("We could not parse the JSON body of your request.")
            if request.streams and self.streams == "rejected":
                raise RequestRejected("Unsupported parameter: 'stream'.", param="stream", code="unsupported_parameter")
            api.check(request)
        except RequestRejected as rejected:
            return rejected.answer
        needed = input_tokens(request) + request.max_output_tokens
        return self.meter.admit(request.model, needed) or self._play(api, request, call, needed)

    def _heeded(self, body: dict[str, Any]) -> dict[str, Any]:
        """What the endpoint heeds of a request."""
        if self.streams != "ignored":
            return body
        return {name: value for name, value in body.items() if name not in ("stream", "stream_options")}

    def _play(self, api: Api, request: ModelRequest, call: Call, admitted: int) -> Gets:
        try:
            answer = self.script.answer(request)
            if isinstance(answer, HttpError | Disconnect):
                return answer
            assert isinstance(answer, Worked)
            plan = api.plan(request, reply_to(request, answer), answer.deltas)
        except Exception as error:
            # The test's own functions run here. Their error must reach the test as one that no client tries again.
            return _test_error(error)
        if plan.usage is not None:
            used = plan.usage.input_tokens + plan.usage.output_tokens
            self.meter.charge(request.model, max(0, used - admitted))
        work = Work(plan, answer, self.patience, self.bill)
        api.keep(request, work)
        self.journal.identify(call, work.id)
        return work


def _test_error(error: Exception) -> HttpError:
    message = f"The test's script has no answer to this call: {type(error).__name__}: {error}"
    return HttpError(400, message, code="test_script_error", delay=0)
