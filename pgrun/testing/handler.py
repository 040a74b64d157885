"""Requests that ask no model: what is stored is looked at, uploaded, cancelled or deleted, and none of it costs anything."""

from collections.abc import Awaitable, Callable
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from pgrun.testing.acceptance import check_key
from pgrun.testing.answers import Disconnect
from pgrun.testing.desk import Desk
from pgrun.testing.request import RequestRejected
from pgrun.testing.response import error_body

Handler = Callable[[Request], Awaitable[Response]]


def noted(desk: Desk, handle: Handler) -> Handler:
    """The handler, for those who bring a key, with scripted faults before it and each request in the journal."""

    async def answer(request: Request) -> Response:
        try:
            check_key(request.headers)
            response = await _fault(desk) or await handle(request)
        except RequestRejected as rejected:
            response = JSONResponse(error_body(rejected.answer), rejected.answer.status)
        response.headers["x-request-id"] = f"req_{uuid4().hex}"
        status = None if isinstance(response, _Dropped) else response.status_code
        desk.journal.note_lookup(request.method, request.url.path, dict(request.query_params), status)
        return response

    return answer


class _Dropped(Response):
    """The connection is closed without an answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["cut"]()


async def _fault(desk: Desk) -> Response | None:
    fault = desk.script.lookup_fault()
    if fault is None:
        return None
    await desk.patience.hold(fault)
    if isinstance(fault, Disconnect):
        return _Dropped()
    return JSONResponse(error_body(fault), fault.status, fault.headers)
