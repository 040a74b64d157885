"""Calls of OpenAIResponses at a model server: asked as a worker asks, begun by one that died, and taken up by another."""

from contextlib import suppress
from typing import Any

import anyio

from pgrun import OpenAIResponses
from pgrun.errors import AttemptError
from pgrun.models.base import Message, ModelRequest, ModelResponse, Watch
from pgrun.testing import ModelServer
from pgrun.testing.answers import Answer
from support.until import until
from support.watching import Remembering


def model_at(server: ModelServer, **options: Any) -> OpenAIResponses:
    return OpenAIResponses(**{"id": "gpt-5-mini", "base_url": server.base_url, "api_key": "own-key", **options})


def asking(watch: Watch, response_id: str | None = None) -> ModelRequest:
    return ModelRequest((Message("user", "Hello"),), watch=watch, response_id=response_id)


async def ask(server: ModelServer, watch: Watch | None = None, **options: Any) -> ModelResponse:
    return await model_at(server, **options).call(asking(watch or Remembering(keeps_ids=True)))


async def begun(server: ModelServer, answer: Answer | str) -> str:
    """The id of an answer that a worker has begun, and died."""
    server.script(answer)
    watch = Remembering(keeps_ids=True)

    async def live() -> None:
        with suppress(AttemptError):
            await model_at(server).call(asking(watch))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(live)
        await until(lambda: watch.ids)
        tasks.cancel_scope.cancel()
    return watch.ids[0]


async def attach(server: ModelServer, response_id: str, watch: Watch | None = None) -> ModelResponse:
    return await model_at(server).call(asking(watch or Remembering(keeps_ids=True), response_id))


def looked(server: ModelServer) -> list[tuple[bool, int | None]]:
    """The lookups of responses: whether each asked for a stream, and its status."""
    return [("stream" in each.query, each.status) for each in server.lookups if each.method == "GET"]
