"""Where a call is taken: would the provider accept it, which answer does the script have, and a model sets to work.

`endpoint` brings the calls that come over HTTP.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pgrun.testing.acceptance import check_key
from pgrun.testing.answers import Disconnect, HttpError, Reply, Worked
from pgrun.testing.bill import Bill
from pgrun.testing.journal import Call, Journal
from pgrun.testing.makeup import reply_to
from pgrun.testing.patience import Patience
from pgrun.testing.request import ModelRequest, RequestRejected
from pgrun.testing.script import Script
from pgrun.testing.work import Plan, Step, Work


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


@dataclass(frozen=True)
class Taken:
    """A call that has been taken, and what it gets."""

    call: Call
    request: ModelRequest
    gets: Work | HttpError | Disconnect


@dataclass(frozen=True)
class Desk:
    """What decides about calls, and what it writes down."""

    script: Script
    journal: Journal
    patience: Patience
    bill: Bill

    def take(self, api: Api, body: dict[str, Any] | None, headers: Mapping[str, str]) -> Taken:
        """Enter a call into the journal, and decide what it gets; `body` is None if it was no JSON object."""
        request = api.read(body or {})
        call = self.journal.open(
            model=request.model,
            text=request.user_text,
            body=request.body,
            headers=headers,
            received_at=time.monotonic(),
        )
        try:
            self._check(api, request if body is not None else None, headers)
        except RequestRejected as rejected:
            return Taken(call, request, rejected.answer)
        try:
            return Taken(call, request, self._decide(api, request, call))
        except Exception as error:
            # The test's own functions run here. Their error must reach the test as one that no client tries again.
            return Taken(call, request, _test_error(error))

    def _check(self, api: Api, request: ModelRequest | None, headers: Mapping[str, str]) -> None:
        check_key(headers)
        if request is None:
            raise RequestRejected("We could not parse the JSON body of your request.")
        api.check(request)

    def _decide(self, api: Api, request: ModelRequest, call: Call) -> Work | HttpError | Disconnect:
        answer = self.script.answer(request)
        if isinstance(answer, HttpError | Disconnect):
            return answer
        assert isinstance(answer, Worked)
        plan = api.plan(request, reply_to(request, answer), answer.deltas)
        work = Work(plan, answer, self.patience, self.bill)
        api.keep(request, work)
        self.journal.identify(call, work.id)
        return work


def _test_error(error: Exception) -> HttpError:
    message = f"The test's script has no answer to this call: {type(error).__name__}: {error}"
    return HttpError(400, message, code="test_script_error", delay=0)
