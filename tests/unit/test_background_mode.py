"""OpenAIResponses in background mode: the id is told first, and from then on the answer is had under it, whatever breaks."""

import logging
from contextlib import suppress
from dataclasses import replace
from typing import Any

import anyio
import pytest
from support.until import until
from support.watching import Remembering

from pgrun import (
    Agent,
    AnswerQueued,
    ModelCallLost,
    ModelRejected,
    ModelUnavailable,
    OpenAIResponses,
    QuotaExceeded,
    UsageError,
)
from pgrun.errors import AttemptError
from pgrun.models.base import BackgroundModel, Message, ModelRequest, ModelResponse, ToolSpec, Watch, load_model
from pgrun.testing import (
    ModelServer,
    Usage,
    cut,
    disconnect,
    failed,
    filtered,
    hang,
    http_error,
    rate_limited,
    refusal,
    reply,
    server_error,
    tool_call,
    truncated,
    unauthorized,
)
from pgrun.testing.answers import Answer

HELLO = ModelRequest((Message("user", "Hello"),))
USED = Usage(100, 50, cached_tokens=64, reasoning_tokens=20)


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


@pytest.mark.parametrize("after_events", [1, 3, 7, None])
@pytest.mark.parametrize("how", ["broken", "clean", "error event"])
async def test_a_stream_that_is_cut_is_taken_up_where_it_was(
    provider: ModelServer, after_events: int | None, how: str
) -> None:
    error = server_error() if how == "error event" else None
    provider.script(cut(reply("Hi there", usage=USED), after_events, clean=how == "clean", error=error))
    watch = Remembering(keeps_ids=True)
    response = await ask(provider, watch)
    assert (response.text, response.usage.total_tokens) == ("Hi there", 150)
    assert watch.told == [("created", response.response_id), ("text", "Hi there")]
    assert (len(provider.calls), provider.paid) == (1, 1)
    assert looked(provider)[0] == (True, 200)


async def test_a_foreground_stream_that_is_cut_is_lost(provider: ModelServer) -> None:
    watch = Remembering(wants_text=True)
    for clean in (False, True):
        provider.script(cut(reply("Hi there"), 7, clean=clean))
        with pytest.raises(ModelUnavailable) as caught:
            await ask(provider, watch)
        assert caught.value.answer == "unknown"
    assert watch.ids == []
    assert provider.lookups == []


async def test_an_answer_that_was_begun_is_had_under_its_id(provider: ModelServer) -> None:
    response_id = await begun(provider, hang())
    watch = Remembering(keeps_ids=True)
    async with anyio.create_task_group() as tasks:

        async def take_up() -> None:
            response = await attach(provider, response_id, watch)
            assert (response.text, response.response_id) == ("A made-up answer to: Hello", response_id)

        tasks.start_soon(take_up)
        await provider.await_for_lookups(1)
        provider.release()
    assert watch.told == [("text", "A made-up answer to: Hello")]
    assert (len(provider.calls), provider.paid) == (1, 1)


@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        (reply("Hi", usage=USED), "completed"),
        (refusal("No."), "refused"),
        (truncated("Hi"), "truncated"),
        (filtered("Hi"), "filtered"),
    ],
)
async def test_an_answer_that_has_ended_meanwhile_is_had_however_it_ended(
    provider: ModelServer, answer: Answer, ending: str
) -> None:
    response_id = await begun(provider, answer)
    assert (await attach(provider, response_id)).ending == ending
    assert len(provider.calls) == 1


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("server_error", ModelUnavailable),
        ("rate_limit_exceeded", ModelUnavailable),
        ("vector_store_timeout", ModelUnavailable),
        ("invalid_prompt", ModelRejected),
        ("bio_policy", ModelRejected),
    ],
)
async def test_an_answer_that_failed_is_over(provider: ModelServer, code: str, error: type[AttemptError]) -> None:
    response_id = await begun(provider, failed(code))
    with pytest.raises(AttemptError) as caught:
        await attach(provider, response_id)
    assert type(caught.value) is error
    assert caught.value.answer == "none"


async def test_what_a_failed_answer_has_used_has_its_price(
    provider: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgrun.models._openai_model.cost_of", lambda *_: 0.5)
    provider.script(replace(failed("server_error"), usage=USED))
    with pytest.raises(ModelUnavailable) as caught:
        await ask(provider)
    assert (caught.value.metrics.total_tokens, caught.value.metrics.cost_usd) == (150, 0.5)


async def test_what_is_too_old_to_be_streamed_is_looked_at() -> None:
    with ModelServer(replay_window=0) as provider:
        response_id = await begun(provider, reply("Hi", deltas=2, interval=0.3))
        assert (await attach(provider, response_id)).text == "Hi"
        looks = looked(provider)
        assert looks[0] == (True, 400)
        assert len(looks) > 2
        assert set(looks[1:]) == {(False, 200)}


async def test_what_the_provider_keeps_no_longer_is_lost(provider: ModelServer) -> None:
    response_id = await begun(provider, "Hi")
    provider.forget(response_id)
    with pytest.raises(ModelCallLost) as caught:
        await attach(provider, response_id)
    assert caught.value.details["response_id"] == response_id
    assert caught.value.details["status_code"] == 404


async def test_a_provider_that_is_away_for_a_while_is_waited_for(provider: ModelServer) -> None:
    response_id = await begun(provider, "Hi")
    provider.script_lookups(server_error(503), disconnect(), rate_limited(0.1))
    assert (await attach(provider, response_id)).text == "Hi"
    assert [status for _, status in looked(provider)] == [503, None, 429, 200]


async def test_an_answer_that_cannot_be_had_now_is_not_given_up(
    provider: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    response_id = await begun(provider, "Hi")
    monkeypatch.setattr("pgrun.models._responses_call._OUT_OF_REACH", 0.2)
    provider.script_lookups(*[server_error(503)] * 9)
    with pytest.raises(ModelUnavailable) as caught:
        await attach(provider, response_id)
    assert caught.value.answer == "pending"
    provider.script_lookups()
    with ModelServer() as other:
        other.script_lookups(unauthorized(), unauthorized())
        with pytest.raises(QuotaExceeded) as refused:
            await attach(other, response_id)
    assert refused.value.answer == "pending"


async def test_an_answer_that_somebody_stopped_at_the_provider_is_asked_for_again(provider: ModelServer) -> None:
    response_id = await begun(provider, hang())
    await model_at(provider).stop(response_id)
    with pytest.raises(ModelUnavailable, match="ended as cancelled") as caught:
        await attach(provider, response_id)
    assert caught.value.answer == "none"


async def test_stopping_what_has_ended_or_is_not_there_does_nothing_but_tell_what_it_has_used(
    provider: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgrun.models._openai_model.cost_of", lambda *_: 0.5)
    response_id = await begun(provider, reply("Hi", usage=USED))
    model = model_at(provider)
    used = await model.stop(response_id)
    assert used is not None
    assert (used.total_tokens, used.cost_usd) == (150, 0.5)
    assert (await attach(provider, response_id)).text == "Hi"
    assert await model.stop("resp_0") is None
    unpaid = await model.stop(await begun(provider, hang()))
    assert unpaid is not None
    assert (unpaid.total_tokens, unpaid.cost_usd) == (0, None)
    provider.script_lookups(server_error(503))
    with pytest.raises(ModelUnavailable):
        await model.stop(response_id)


async def test_when_its_time_is_up_the_provider_is_told_to_stop(provider: ModelServer) -> None:
    provider.script(hang())
    with pytest.raises(ModelUnavailable, match=r"within 0\.3 s") as caught:
        await ask(provider, timeout=0.3)
    assert caught.value.answer == "none"
    assert [body["status"] for body in provider.responses.values()] == ["cancelled"]


async def test_when_its_time_is_up_and_the_provider_cannot_be_told_the_answer_is_still_to_be_had(
    provider: ModelServer,
) -> None:
    provider.script(hang())
    provider.script_lookups(server_error(503))
    with pytest.raises(ModelUnavailable) as caught:
        await ask(provider, timeout=0.3)
    assert caught.value.answer == "pending"


async def test_when_its_time_is_up_before_the_id_is_known_nobody_knows(provider: ModelServer) -> None:
    provider.script(hang(silent=True))
    with pytest.raises(ModelUnavailable) as caught:
        await ask(provider, timeout=0.3)
    assert caught.value.answer == "unknown"


@pytest.mark.parametrize(("keeps_ids", "status"), [(True, "in_progress"), (False, "cancelled")])
async def test_a_call_that_is_cancelled_is_stopped_there_only_if_nobody_could_take_it_up(
    provider: ModelServer, keeps_ids: bool, status: str
) -> None:
    provider.script(hang())
    watch = Remembering(keeps_ids=keeps_ids)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(model_at(provider, background=True).call, asking(watch))
        await until(lambda: watch.ids)
        await until(lambda: provider.responses[watch.ids[0]]["status"] == "in_progress")
        tasks.cancel_scope.cancel()
    assert provider.responses[watch.ids[0]]["status"] == status


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


async def test_an_answer_that_is_only_queued_is_waited_for_as_long_as_the_watch_has_patience(
    provider: ModelServer,
) -> None:
    provider.script(hang(queued=True))
    watch = Remembering(keeps_ids=True)
    watch.patience = 0.1
    with pytest.raises(AnswerQueued) as caught:
        await ask(provider, watch)
    assert caught.value.answer == "pending"
    (response_id,) = watch.ids
    with pytest.raises(AnswerQueued):
        await attach(provider, response_id, watch)
    provider.release()
    assert (await attach(provider, response_id, watch)).text == "A made-up answer to: Hello"
    assert len(provider.calls) == 1


async def test_an_answer_that_was_begun_is_waited_for(provider: ModelServer) -> None:
    provider.script(reply("Hi", delay=0.5), reply("Hi", delay=0.5))
    watch = Remembering(keeps_ids=True)
    watch.patience = 0.1
    assert (await ask(provider, watch)).text == "Hi"
