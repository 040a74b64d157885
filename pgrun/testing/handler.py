"""Requests that ask no model: what is stored is looked at, uploaded, cancelled or deleted, and none of it costs anything."""

from collections.abc import Awaitable, Callable
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pgrun.testing.acceptance import check_key
from pgrun.testing.journal import Journal
from pgrun.testing.request import RequestRejected
from pgrun.testing.response import error_body

Handler = Callable[[Request], Awaitable[Response]]


def noted(journal: Journal, handle: Handler) -> Handler:
    """The handler, for those who bring a key, with refusals in the provider's form and each request in the journal."""

    async def answer(request: Request) -> Response:
        try:
            check_key(request.headers)
            response = await handle(request)
        except RequestRejected as rejected:
            response = JSONResponse(error_body(rejected.answer), rejected.answer.status)
        response.headers["x-request-id"] = f"req_{uuid4().hex}"
        journal.note_lookup(request.method, request.url.path, dict(request.query_params), response.status_code)
        return response

    return answer
