"""One call, from its first byte to its last: what `loopback` serves at ``POST /v1/responses``.

A plain ASGI application rather than a request handler, because it has to see when the client disconnects, when the last
byte of the answer goes out, and sometimes has to leave without any answer.
"""

import time

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from pgrun.testing.answers import Answer, Disconnect, HttpError
from pgrun.testing.journal import Call, Journal
from pgrun.testing.patience import Patience
from pgrun.testing.request import ModelRequest, RequestRejected, check, parse
from pgrun.testing.response import error_body, headers, response_body
from pgrun.testing.script import Script


def application(script: Script, journal: Journal, patience: Patience) -> Starlette:
    """Everything the server answers, under the provider's paths."""
    responses = ResponsesEndpoint(script, journal, patience)
    return Starlette(
        routes=[Route("/v1/responses", responses, methods=["POST"])],
        exception_handlers={404: _not_offered, 405: _not_offered},
    )


class ResponsesEndpoint:
    """Answers ``POST /v1/responses`` the way a test has scripted it."""

    def __init__(self, script: Script, journal: Journal, patience: Patience) -> None:
        self._script = script
        self._journal = journal
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the call, choose its answer, wait until it is due, send it."""
        http = Request(scope, receive)
        try:
            request = parse(await http.body())
        except ClientDisconnect:
            return  # before it had asked anything
        call = self._enter(request, http)
        answer, response = self._prepare(call, request)
        if not await self._patience.hold(answer, receive):
            self._journal.close(call, "aborted")
        elif isinstance(answer, Disconnect):
            self._journal.close(call, "dropped")
            scope["state"]["transport"].abort()
        else:
            await response(scope, receive, self._noting(send, call, response.status_code))

    def _enter(self, request: ModelRequest | None, http: Request) -> Call:
        asked = request or ModelRequest({})
        return self._journal.open(
            model=asked.model,
            text=asked.user_text,
            body=asked.body,
            headers=dict(http.headers),
            received_at=time.monotonic(),
        )

    def _prepare(self, call: Call, request: ModelRequest | None) -> tuple[Answer, Response]:
        try:
            request = check(request, call.headers)
        except RequestRejected as rejected:
            return rejected.answer, _rendered(rejected.answer, call, ModelRequest({}))
        try:
            answer = self._script.answer(request)
            return answer, _rendered(answer, call, request)
        except Exception as error:
            # The test's own functions run here. Their error must reach the test as one that no client tries again.
            answer = _test_error(error)
            return answer, _rendered(answer, call, request)

    def _noting(self, send: Send, call: Call, status: int) -> Send:
        async def send_and_note(message: Message) -> None:
            # Noted just before the last bytes go: a client that has read its answer must find it in the journal, and
            # after the bytes are out the client's thread may well run before this one.
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._journal.close(call, "answered", status=status, answered_at=time.monotonic())
            await send(message)

        return send_and_note


def _rendered(answer: Answer, call: Call, request: ModelRequest) -> Response:
    if isinstance(answer, HttpError):
        return JSONResponse(error_body(answer), answer.status, headers(call.number, answer.headers))
    return JSONResponse(response_body(answer, request), 200, headers(call.number, {}))


def _test_error(error: Exception) -> HttpError:
    message = f"The test's script has no answer to this call: {type(error).__name__}: {error}"
    return HttpError(400, message, code="test_script_error", delay=0)


def _not_offered(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    message = f"Invalid URL ({request.method} {request.url.path}): this test server answers POST /v1/responses."
    return JSONResponse(error_body(HttpError(status, message)), status)
