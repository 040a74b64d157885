"""Batches over HTTP: create, retrieve, cancel; a `Batch` does the work in the background."""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pgrun.testing.acceptance import check_types
from pgrun.testing.background import Background
from pgrun.testing.batch import Batch, Order
from pgrun.testing.desk import Api, Desk
from pgrun.testing.files import Files
from pgrun.testing.handler import noted
from pgrun.testing.request import RequestRejected, missing, parse

_NEEDED = ("input_file_id", "endpoint", "completion_window")


class Batches:
    """All batches of one server."""

    def __init__(self, apis: Iterable[Api], desk: Desk, files: Files, background: Background) -> None:
        self._apis = {api.path: api for api in apis}
        self._desk = desk
        self._files = files
        self._background = background
        self._batches: dict[str, Batch] = {}
        self.routes = [
            Route("/v1/batches", noted(desk, self._create), methods=["POST"]),
            Route("/v1/batches/{batch_id}", noted(desk, self._retrieve), methods=["GET"]),
            Route("/v1/batches/{batch_id}/cancel", noted(desk, self._cancel), methods=["POST"]),
        ]

    async def _create(self, request: Request) -> Response:
        body = parse(await request.body()) or {}
        check_types(body, dict.fromkeys(_NEEDED, (str,)))
        for name in _NEEDED:
            if not body.get(name):
                raise missing(name)
        if body["endpoint"] not in self._apis:
            raise _invalid("endpoint", f"supported are {', '.join(self._apis)}.")
        if body["completion_window"] != "24h":
            raise _invalid("completion_window", "supported is '24h'.")
        file = self._files.find(body["input_file_id"])
        if file.purpose != "batch":
            raise _invalid("input_file_id", "the file's purpose has to be 'batch'.")
        order = Order(file, dict(request.headers), body.get("metadata"))
        batch = Batch(self._apis[body["endpoint"]], self._desk, self._files, order)
        self._batches[batch.body["id"]] = batch
        self._background.start(batch.run)
        return JSONResponse(batch.body)

    async def _retrieve(self, request: Request) -> Response:
        return JSONResponse(self._find(request).body)

    async def _cancel(self, request: Request) -> Response:
        batch = self._find(request)
        batch.cancel()
        return JSONResponse(batch.body)

    def _find(self, request: Request) -> Batch:
        batch_id = request.path_params["batch_id"]
        if batch_id not in self._batches:
            raise RequestRejected(f"No batch found with id '{batch_id}'.", status=404)
        return self._batches[batch_id]


def _invalid(param: str, rule: str) -> RequestRejected:
    return RequestRejected(f"Invalid value for '{param}': {rule}", param=param, code="invalid_value")
