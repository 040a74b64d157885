"""Everything the server answers, under the provider's paths; `loopback` serves it."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pgrun.testing.answers import HttpError
from pgrun.testing.background import Background
from pgrun.testing.batches import Batches
from pgrun.testing.chat import ChatApi
from pgrun.testing.desk import Api, Desk
from pgrun.testing.endpoint import ModelEndpoint
from pgrun.testing.files import Files
from pgrun.testing.lookups import Lookups
from pgrun.testing.response import error_body
from pgrun.testing.responses import ResponsesApi
from pgrun.testing.store import Store


def application(desk: Desk, responses: ResponsesApi, store: Store, background: Background) -> Starlette:
    """The routes to all parts of the server; one that is started again has the same."""
    apis: list[Api] = [responses, ChatApi()]
    files = Files(desk)
    return Starlette(
        routes=[
            *(Route(api.path, ModelEndpoint(api, desk, background), methods=["POST"]) for api in apis),
            *Lookups(store, desk).routes,
            *files.routes,
            *Batches(apis, desk, files, background).routes,
        ],
        exception_handlers={404: _not_offered, 405: _not_offered},
    )


def _not_offered(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    message = f"Invalid URL ({request.method} {request.url.path}): this test server does not answer that."
    return JSONResponse(error_body(HttpError(status, message)), status)
