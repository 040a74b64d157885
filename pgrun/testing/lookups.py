"""Stored responses over HTTP: retrieve, stream again, cancel, delete.

None of it asks a model, so none of it costs anything.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pgrun.testing.acceptance import check_key
from pgrun.testing.journal import Journal
from pgrun.testing.request import RequestRejected
from pgrun.testing.response import error_body
from pgrun.testing.responses import ResponsesApi
from pgrun.testing.store import Store, Stored

Handler = Callable[[Request], Awaitable[Response]]


class Lookups:
    """What can be done with a response by its id."""

    def __init__(self, store: Store, journal: Journal) -> None:
        self._store = store
        self._journal = journal

    @property
    def routes(self) -> list[Route]:
        """Where it can be done."""
        path = f"{ResponsesApi.path}/{{response_id}}"
        return [
            Route(path, self._answering(self._retrieve), methods=["GET"]),
            Route(path, self._answering(self._delete), methods=["DELETE"]),
            Route(f"{path}/cancel", self._answering(self._cancel), methods=["POST"]),
        ]

    def _answering(self, do: Callable[[Request, Stored], Response]) -> Handler:
        async def handle(request: Request) -> Response:
            try:
                check_key(request.headers)
                response = do(request, self._store.find(request.path_params["response_id"]))
            except RequestRejected as rejected:
                response = JSONResponse(error_body(rejected.answer), rejected.answer.status)
            response.headers["x-request-id"] = f"req_{uuid4().hex}"
            self._journal.note_lookup(
                request.method, request.url.path, dict(request.query_params), response.status_code
            )
            return response

        return handle

    def _retrieve(self, request: Request, stored: Stored) -> Response:
        if request.query_params.get("stream") != "true":
            return JSONResponse(stored.work.body)
        stored.check_streamable()
        after = request.query_params.get("starting_after", "-1")
        if not after.removeprefix("-").isdigit():
            message = f"Invalid type for 'starting_after': expected an integer, but got '{after}' instead."
            raise RequestRejected(message, param="starting_after", code="invalid_type")
        return StreamingResponse(_frames(stored, int(after)), media_type="text/event-stream")

    def _cancel(self, request: Request, stored: Stored) -> Response:
        if not stored.background:
            raise RequestRejected("Cannot cancel a synchronous response.")
        stored.stop()
        return JSONResponse(stored.work.body)

    def _delete(self, request: Request, stored: Stored) -> Response:
        self._store.delete(stored.work.id)
        return JSONResponse({"id": stored.work.id, "object": "response", "deleted": True})


async def _frames(stored: Stored, after: int) -> AsyncIterator[bytes]:
    async for step in stored.work.follow(after):
        yield ResponsesApi.frame(step)
