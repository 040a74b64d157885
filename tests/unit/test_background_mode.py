"""OpenAIResponses in background mode: when it is used, what is told of an answer, and servers that do not know it."""

import logging
from dataclasses import replace
from typing import Any

import pytest
from support.asking import ask, looked, model_at
from support.watching import Remembering

from pgrun import Agent, ModelRejected, ModelUnavailable, OpenAIResponses, UsageError
from pgrun.models.base import BackgroundModel, Message, ModelRequest, ModelResponse, ToolSpec, Watch, load_model
from pgrun.testing import ModelServer, Usage, cut, disconnect, http_error, rate_limited, reply, server_error, tool_call

HELLO = ModelRequest((Message("user", "Hello"),))
USED = Usage(100, 50, cached_tokens=64, reasoning_tokens=20)


async def test_the_id_is_told_before_anything_of_the_answer(provider: ModelServer) -> None:
    provider.script(reply("Hi there", usage=USED))
    watch = Remembering(keeps_ids=True)
    response = await ask(provider, watch)
    assert watch.told == [("created", response.response_id), ("text", "Hi there")]
    assert (response.text, response.usage.total_tokens, response.usage.cached_tokens) == ("Hi there", 150, 64)
    (call,) = provider.calls
    assert (call.body["background"], call.body["stream"], call.body["store"]) == (True, True, True)


async def test_calls_and_items_come_through_a_stream_as_they_are(provider: ModelServer) -> None:
    answer = reply("I look.", calls=[tool_call("look", {"city": "Rome"}, call_id="call_1")])
    provider.always(answer)
    watch = Remembering(keeps_ids=True)
    tools = (ToolSpec("look", "", {"type": "object", "properties": {}}, strict=False),)
    model, request = model_at(provider), replace(HELLO, tools=tools)
    streamed, whole = [await model.call(replace(request, watch=each)) for each in (watch, Watch())]
    assert watch.told[1:] == [("text", "I look."), ("call", "call_1", "look")]
    assert (streamed.text, streamed.calls, len(streamed.items)) == (whole.text, whole.calls, len(whole.items))


@pytest.mark.parametrize(
    ("options", "keeps_ids", "background"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"background": True}, False, True),
        ({"background": False}, True, False),
        ({"store": False}, True, False),
    ],
)
async def test_it_is_for_runs_whose_ids_are_kept_unless_the_model_says_otherwise(
    provider: ModelServer, options: dict[str, Any], keeps_ids: bool, background: bool
) -> None:
    await ask(provider, Remembering(keeps_ids=keeps_ids), **options)
    assert provider.calls[0].body.get("background", False) is background


async def test_a_run_without_a_database_asks_in_the_foreground(provider: ModelServer) -> None:
    await Agent(model=model_at(provider)).arun("Hello")
    assert "background" not in provider.calls[0].body
    assert "stream" not in provider.calls[0].body


async def test_the_option_travels(provider: ModelServer) -> None:
    definition = model_at(provider, background=False).definition()
    assert definition["background"] is False
    model = load_model(definition)
    assert isinstance(model, OpenAIResponses)
    assert isinstance(model, BackgroundModel)
    assert "background" not in model.body(HELLO)
    with pytest.raises(UsageError):
        load_model({**definition, "foreground": True})


async def test_a_foreground_stream_that_is_cut_is_lost(provider: ModelServer) -> None:
    watch = Remembering(wants_text=True)
    for clean in (False, True):
        provider.script(cut(reply("Hi there"), 7, clean=clean))
        with pytest.raises(ModelUnavailable) as caught:
            await ask(provider, watch)
        assert caught.value.answer == "unknown"
    assert watch.ids == []
    assert provider.lookups == []


async def test_a_server_that_rejects_background_mode_is_asked_without_and_not_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ModelServer(background="rejected") as server, caplog.at_level(logging.INFO, "pgrun.models"):
        for _ in range(2):
            assert (await ask(server)).text == "A made-up answer to: Hello"
        assert [call.status for call in server.calls] == [400, 200, 200]
        assert "background" not in server.calls[2].body
        assert server.paid == 2
        with pytest.raises(ModelRejected, match="background"):
            await ask(server, background=True)
    assert [record.message for record in caplog.records if "has no background mode" in record.message] != []
    assert len([record for record in caplog.records if "has no background mode" in record.message]) == 1


async def test_a_server_that_ignores_background_mode_is_not_asked_for_it_again() -> None:
    with ModelServer(background="ignored") as server:
        watch = Remembering(keeps_ids=True)
        for _ in range(2):
            await ask(server, watch)
        assert watch.ids == []
        assert ["background" in call.body for call in server.calls] == [True, False]


async def test_a_server_that_ignores_streams_is_looked_at_until_it_has_answered() -> None:
    with ModelServer(streams="ignored", interval=0.05) as server:
        watch = Remembering(keeps_ids=True)
        response = await ask(server, watch)
        assert watch.told == [("created", response.response_id), ("text", "A made-up answer to: Hello")]
        assert looked(server)[0] == (True, 400)
        assert looked(server)[-1] == (False, 200)
        assert server.paid == 1


@pytest.mark.parametrize("mode", ["rejected", "ignored"])
async def test_a_reader_of_a_server_without_streams_gets_the_answer_in_one_piece(mode: Any) -> None:
    with ModelServer(streams=mode) as server:
        for _ in range(2):
            watch = Remembering(wants_text=True)
            await ask(server, watch)
            assert watch.told == [("text", "A made-up answer to: Hello")]
        assert server.paid == 2
        assert len(server.calls) == (3 if mode == "rejected" else 2)


async def test_a_request_that_is_wrong_for_another_reason_says_nothing_about_the_server(provider: ModelServer) -> None:
    provider.script(http_error(400, message="Unknown parameter: 'colour'."), http_error(400, message="No."), "Hi")
    with pytest.raises(ModelRejected, match="No"):
        await ask(provider)
    watch = Remembering(keeps_ids=True)
    await ask(provider, watch)
    assert len(watch.ids) == 1


async def test_nothing_is_asked_twice_that_may_have_been_accepted(provider: ModelServer) -> None:
    for answer in (cut("Hi", 0), disconnect(), server_error(500), rate_limited(1)):
        provider.script(answer)
        with pytest.raises(ModelUnavailable):
            await ask(provider)
    assert len(provider.calls) == 4


async def test_what_the_provider_says_of_its_limits_comes_with_the_answer(provider: ModelServer) -> None:
    for watch in (Remembering(keeps_ids=True), Remembering()):
        limits = (await ask(provider, watch)).rate_limits
        assert limits is not None
        assert limits.keys() == {
            f"{what}_{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")
        }
        assert limits["remaining_requests"] <= limits["limit_requests"]


async def test_thoughts_and_commentary_are_told_apart_from_the_answer() -> None:
    from pgrun.models._openai_teller import Teller

    watch = Remembering()
    teller = Teller(watch)
    for event in (
        {"type": "response.reasoning_summary_text.delta", "delta": "Hm."},
        {"type": "response.output_item.added", "item": {"id": "m1", "type": "message", "phase": "commentary"}},
        {"type": "response.output_text.delta", "item_id": "m1", "delta": " I look."},
        {"type": "response.output_item.added", "item": {"id": "m2", "type": "message"}},
        {"type": "response.output_text.delta", "item_id": "m2", "delta": "Su"},
        {"type": "response.refusal.delta", "item_id": "m2", "delta": "No"},
        {"type": "response.output_text.delta", "item_id": "m2", "delta": None},
        {"type": "an event of tomorrow"},
    ):
        teller.tell(event)
    teller.tell_rest(ModelResponse("Sun."))
    assert watch.told == [("thought", "Hm. I look."), ("text", "Sun.")]
