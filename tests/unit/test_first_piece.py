"""How long an answer lets wait for its first piece is measured where it comes in pieces, and nowhere else."""

import time
from typing import Any

import pytest
from support.watching import Remembering

from pgrun import OpenAIChat, OpenAIResponses
from pgrun.models.base import Message, ModelRequest, ToolSpec
from pgrun.run.metrics import RunMetrics
from pgrun.testing import ModelServer, cut, hang, reply, tool_call
from pgrun.testing.answers import Answer

DELAY, INTERVAL = 0.1, 0.2
IN_PIECES = reply("Hi there", delay=DELAY, deltas=2, interval=INTERVAL)
TOOLS = (ToolSpec("look", "", {"type": "object", "properties": {}}, strict=False),)


async def usage_of(
    model: type[Any], server: ModelServer, answer: Answer, *, response_id: str | None = None, **watch: Any
) -> RunMetrics:
    server.script(answer)
    asked = ModelRequest((Message("user", "Hello"),), tools=TOOLS, watch=Remembering(**watch), response_id=response_id)
    response = await model("gpt-5-mini", base_url=server.base_url, api_key="test").call(asked)
    usage: RunMetrics = response.usage
    return usage


@pytest.mark.parametrize(
    ("model", "answer", "watch"),
    [
        (OpenAIResponses, IN_PIECES, {"keeps_ids": True}),
        (OpenAIResponses, cut(IN_PIECES, 6), {"keeps_ids": True}),
        (OpenAIResponses, IN_PIECES, {"wants_text": True}),
        (OpenAIChat, IN_PIECES, {"wants_text": True}),
    ],
)
async def test_it_is_the_time_from_the_question_to_the_first_piece(
    provider: ModelServer, model: type[Any], answer: Answer, watch: dict[str, Any]
) -> None:
    began = time.monotonic()
    usage = await usage_of(model, provider, answer, **watch)
    took = time.monotonic() - began
    assert usage.time_to_first_token is not None
    assert DELAY <= usage.time_to_first_token <= took - 0.9 * INTERVAL


async def test_a_call_of_a_tool_is_a_piece_too(provider: ModelServer) -> None:
    usage = await usage_of(OpenAIResponses, provider, reply(calls=[tool_call("look")], delay=DELAY), keeps_ids=True)
    assert usage.time_to_first_token is not None
    assert usage.time_to_first_token >= DELAY


@pytest.mark.parametrize("model", [OpenAIChat, OpenAIResponses])
async def test_an_answer_that_comes_whole_has_none(provider: ModelServer, model: type[Any]) -> None:
    assert (await usage_of(model, provider, reply("Hi"))).time_to_first_token is None


async def test_one_that_is_taken_up_has_none_because_nobody_here_knows_when_it_was_asked(provider: ModelServer) -> None:
    await usage_of(OpenAIResponses, provider, reply("Hi"), keeps_ids=True)
    (response_id,) = provider.responses
    usage = await usage_of(OpenAIResponses, provider, hang(), keeps_ids=True, response_id=response_id)
    assert usage.total_tokens > 0
    assert usage.time_to_first_token is None
