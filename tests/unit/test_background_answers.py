"""An answer that was begun in background mode is had under its id, whatever breaks, and stopped when nobody wants it."""

from dataclasses import replace

import anyio
import pytest
from support.asking import ask, asking, attach, begun, looked, model_at
from support.until import until
from support.watching import Remembering

from pgrun import AnswerQueued, ModelCallLost, ModelRejected, ModelUnavailable, QuotaExceeded
from pgrun.errors import AttemptError
from pgrun.testing import (
    ModelServer,
    Usage,
    cut,
    disconnect,
    failed,
    filtered,
    hang,
    rate_limited,
    refusal,
    reply,
    server_error,
    truncated,
    unauthorized,
)
from pgrun.testing.answers import Answer

USED = Usage(100, 50, cached_tokens=64, reasoning_tokens=20)


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
