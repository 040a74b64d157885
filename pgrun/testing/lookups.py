"""Stored responses over HTTP: retrieve, stream again, cancel, delete."""

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pgrun.testing.desk import Desk
from pgrun.testing.handler import noted
from pgrun.testing.request import RequestRejected
from pgrun.testing.responses import ResponsesApi
from pgrun.testing.store import Store, Stored


class Lookups:
    """What can be done with a response by its id."""

    def __init__(self, store: Store, desk: Desk) -> None:
        self._store = store
        path = f"{ResponsesApi.path}/{{response_id}}"
        self.routes = [
            Route(path, noted(desk, self._retrieve), methods=["GET"]),
            Route(path, noted(desk, self._delete), methods=["DELETE"]),
            Route(f"{path}/cancel", noted(desk, self._cancel), methods=["POST"]),
        ]

    async def _retrieve(self, request: Request) -> Response:
        stored = self._find(request)
        if request.query_params.get("stream") != "true":
            return JSONResponse(stored.work.body)
        stored.check_streamable()
        after = request.query_params.get("starting_after", "-1")
        if not after.removeprefix("-").isdigit():
            message = f"Invalid type for 'starting_after': expected an integer, but got '{after}' instead."
            raise RequestRejected(message, param="starting_after", code="invalid_type")
        return StreamingResponse(_frames(stored, int(after)), media_type="text/event-stream")

    async def _cancel(self, request: Request) -> Response:
        stored = self._find(request)
        if not stored.background:
            raise RequestRejected("Cannot cancel a synchronous response.")
        stored.stop()
        return JSONResponse(stored.work.body)

    async def _delete(self, request: Request) -> Response:
        response_id = self._find(request).work.id
        self._store.delete(response_id)
        return JSONResponse({"id": response_id, "object": "response", "deleted": True})

    def _find(self, request: Request) -> Stored:
        return self._store.find(request.path_params["response_id"])


async def _frames(stored: Stored, after: int) -> AsyncIterator[bytes]:
    async for step in stored.work.follow(after):
        yield ResponsesApi.frame(step)
