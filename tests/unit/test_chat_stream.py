"""OpenAIChat for readers: the completion is put together from its pieces, and a stream without an end is none."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.watching import Remembering

from pgrun import ModelRejected, ModelUnavailable, OpenAIChat, QuotaExceeded, RunMetrics
from pgrun.errors import AttemptError
from pgrun.models._chat_answer import answer_from
from pgrun.models._chat_stream import assembled
from pgrun.models.base import Message, ModelRequest, ModelResponse, ToolSpec
from pgrun.testing import ModelServer, Usage, cut, filtered, refusal, reply, server_error, tool_call, truncated
from pgrun.testing.answers import Answer
from pgrun.testing.desk import StreamMode

TOOLS = (ToolSpec("look", "", {"type": "object", "properties": {}}, strict=False),)


async def ask(server: ModelServer, watch: Remembering) -> ModelResponse:
    model = OpenAIChat(id="llama", base_url=server.base_url, api_key="own-key")
    return await model.call(ModelRequest((Message("user", "Hello"),), tools=TOOLS, watch=watch))


def piece(
    index: int | None, call_id: str | None = None, name: str | None = None, arguments: Any = None
) -> dict[str, Any]:
    call = {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}
    return {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]}


def said(finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


async def read(*chunks: dict[str, Any], watch: Remembering | None = None) -> ModelResponse:
    async def stream() -> AsyncIterator[dict[str, Any]]:
        for chunk in chunks:
            yield chunk

    return answer_from(await assembled(stream(), watch or Remembering(), "here"))


def untimed(response: ModelResponse) -> RunMetrics:
    """What an answer has used, without how long it let wait."""
    return response.usage.model_copy(update={"time_to_first_token": None})


async def test_it_streams_only_for_readers(models: ModelServer) -> None:
    models.always(reply("Hi there", usage=Usage(100, 50, cached_tokens=64, reasoning_tokens=20)))
    reader, nobody = Remembering(wants_text=True), Remembering(keeps_ids=True)
    streamed, whole = await ask(models, reader), await ask(models, nobody)
    assert untimed(streamed) == whole.usage
    assert (streamed.text, streamed.ending, streamed.model) == (whole.text, whole.ending, whole.model)
    assert reader.told == nobody.told == [("text", "Hi there")]
    first, second = [call.body for call in models.calls]
    assert (first["stream"], first["stream_options"]) == (True, {"include_usage": True})
    assert "stream" not in second


@pytest.mark.parametrize(
    "answer",
    [
        reply("I look.", calls=[tool_call("look", {"a": 1}, call_id="x"), tool_call("look", '{"b', call_id="y")]),
        refusal("No."),
        truncated("Hi"),
        filtered("Hi"),
    ],
)
async def test_what_is_put_together_is_what_would_have_come_whole(models: ModelServer, answer: Answer) -> None:
    models.always(answer)
    watch = Remembering(wants_text=True)
    streamed, whole = await ask(models, watch), await ask(models, Remembering())
    assert untimed(streamed) == whole.usage
    for name in ("text", "ending", "refusal", "calls"):
        assert getattr(streamed, name) == getattr(whole, name)
    assert [facts[1:] for facts in watch.told if facts[0] == "call"] == [
        (each.call_id, each.name) for each in whole.calls
    ]


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("after_events", [0, 3, 5])
async def test_a_stream_that_is_cut_is_no_answer(models: ModelServer, after_events: int, clean: bool) -> None:
    models.script(cut(reply("Hi there"), after_events, clean=clean))
    with pytest.raises(ModelUnavailable) as caught:
        await ask(models, Remembering(wants_text=True))
    assert caught.value.answer == "unknown"
    assert len(models.calls) == 1


async def test_an_error_in_the_stream_is_told(models: ModelServer) -> None:
    models.script(cut(reply("Hi there"), 3, error=server_error()))
    with pytest.raises(ModelUnavailable, match="The server had an error"):
        await ask(models, Remembering(wants_text=True))


@pytest.mark.parametrize("mode", ["rejected", "ignored"])
async def test_a_server_without_streams_answers_whole(mode: StreamMode) -> None:
    with ModelServer(streams=mode) as server:
        for _ in range(2):
            watch = Remembering(wants_text=True)
            response = await ask(server, watch)
            assert watch.told == [("text", response.text)]
        assert len(server.calls) == (3 if mode == "rejected" else 2)


async def test_pieces_of_calls_find_together_whatever_a_server_counts() -> None:
    end = said("tool_calls")
    watch = Remembering()
    counted = await read(
        piece(0, "a", "look"), piece(0, arguments='{"x"'), piece(1, "b", "look", "{}"), piece(0, arguments=":1}"), end
    )
    assert [(call.call_id, call.arguments) for call in counted.calls] == [("a", '{"x":1}'), ("b", "{}")]
    uncounted = await read(piece(0, "a", "look", "{}"), piece(0, "b", "find", "{}"), end, watch=watch)
    assert [(call.call_id, call.name) for call in uncounted.calls] == [("a", "look"), ("b", "find")]
    assert watch.told == [("call", "a", "look"), ("call", "b", "find")]
    bare = await read(piece(None, None, "look", {"x": 1}), end)
    assert [(call.name, call.arguments) for call in bare.calls] == [("look", '{"x": 1}')]


async def test_thoughts_are_told_and_no_part_of_the_answer() -> None:
    watch = Remembering()
    response = await read(
        said(role="assistant", content="", reasoning_content="Hm."),
        said(reasoning=" Well."),
        said(content="Sun"),
        said("stop", content="."),
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
        watch=watch,
    )
    assert watch.told == [("thought", "Hm. Well."), ("text", "Sun.")]
    assert (response.text, response.usage.total_tokens) == ("Sun.", 3)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 429, "message": "slow down"}, ModelUnavailable),
        ({"code": "402", "message": "pay"}, QuotaExceeded),
        ({"code": 400, "message": "no"}, ModelRejected),
        ({"type": "insufficient_quota", "message": "pay"}, QuotaExceeded),
        ({"message": "broken"}, ModelUnavailable),
        ({}, ModelUnavailable),
    ],
)
def test_gateways_say_in_a_stream_what_they_would_have_said_by_the_status(
    error: dict[str, Any], kind: type[AttemptError]
) -> None:
    from pgrun.models._openai_failures import told_in_stream

    assert type(told_in_stream(error, "here")) is kind
