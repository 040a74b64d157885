"""OpenAIResponses when the provider does not answer: each failure in our words, after exactly one request."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anyio
import pytest
from support.asking import model_at

from pgrun import ModelRejected, ModelUnavailable, QuotaExceeded
from pgrun.errors import AttemptError
from pgrun.models.base import Message, ModelRequest
from pgrun.testing import (
    ModelServer,
    disconnect,
    failed,
    hang,
    http_error,
    quota_exceeded,
    rate_limited,
    reply,
    server_error,
    unauthorized,
)
from pgrun.testing.answers import Answer

HELLO = ModelRequest((Message("user", "Hello"),))


async def failure(server: ModelServer, answer: Answer, **options: Any) -> AttemptError:
    server.script(answer)
    with pytest.raises(AttemptError) as caught:
        await model_at(server, **options).call(HELLO)
    assert len(server.calls) == 1, "the queue retries, the SDK does not"
    return caught.value


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (http_error(408), ModelUnavailable),
        (http_error(409), ModelUnavailable),
        (http_error(429), ModelUnavailable),
        (rate_limited(), ModelUnavailable),
        (server_error(500), ModelUnavailable),
        (server_error(502), ModelUnavailable),
        (server_error(503), ModelUnavailable),
        (server_error(529), ModelUnavailable),
        (quota_exceeded(), QuotaExceeded),
        (unauthorized(), QuotaExceeded),
        (http_error(402), QuotaExceeded),
        (http_error(400), ModelRejected),
        (http_error(403), ModelRejected),
        (http_error(404, code="model_not_found"), ModelRejected),
        (http_error(413), ModelRejected),
        (http_error(422), ModelRejected),
        (failed("server_error"), ModelUnavailable),
        (failed("rate_limit_exceeded"), ModelUnavailable),
        (failed("vector_store_timeout"), ModelUnavailable),
        (failed("rate_limit_exceeded", "You exceeded your current quota."), QuotaExceeded),
        (failed("invalid_prompt"), ModelRejected),
        (failed("image_content_policy_violation"), ModelRejected),
        (disconnect(), ModelUnavailable),
    ],
)
async def test_a_failure_says_whether_trying_again_can_help(
    models: ModelServer, answer: Answer, error: type[AttemptError]
) -> None:
    caught = await failure(models, answer)
    assert type(caught) is error


async def test_an_error_carries_the_providers_words_and_what_support_asks_for(models: ModelServer) -> None:
    error = await failure(models, http_error(404, code="model_not_found", message="There is no gpt-7."))
    assert str(error) == f"HTTP 404 from {models.base_url}/: There is no gpt-7."
    assert error.details["status_code"] == 404
    assert error.details["code"] == "model_not_found"
    assert error.details["request_id"].startswith("req_")
    assert "own-key" not in str(error) + str(error.details)


async def test_a_failed_response_carries_its_code_and_id(models: ModelServer) -> None:
    error = await failure(models, failed("server_error", "Overheated."))
    assert str(error) == "the provider failed (server_error): Overheated."
    assert error.details["code"] == "server_error"
    assert error.details["response_id"].startswith("resp_")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after": "999999999"}, 86_400.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "soon"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_the_provider_says_when_to_come_back(
    models: ModelServer, headers: dict[str, str], seconds: float | None, status: int
) -> None:
    error = await failure(models, http_error(status, headers=headers))
    assert isinstance(error, ModelUnavailable)
    assert error.retry_after == seconds
    assert error.details.get("retry_after") == seconds


@pytest.mark.parametrize(("ahead", "lowest", "highest"), [(100, 90, 100), (-100, 0, 0)])
async def test_the_provider_may_name_a_moment_to_come_back(
    models: ModelServer, ahead: float, lowest: float, highest: float
) -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
    error = await failure(models, http_error(429, headers={"retry-after": moment}))
    assert isinstance(error, ModelUnavailable)
    assert error.retry_after is not None
    assert lowest <= error.retry_after <= highest


async def test_a_call_ends_when_its_time_is_up(models: ModelServer) -> None:
    started = time.monotonic()
    error = await failure(models, hang(), timeout=0.1)
    assert isinstance(error, ModelUnavailable)
    assert error.details["code"] == "timeout"
    assert "within 0.1 s" in str(error)
    assert time.monotonic() - started < 5
    await models.await_for_calls(1, outcome="aborted")


async def test_a_server_that_is_not_there_is_unavailable(models: ModelServer) -> None:
    models.stop()
    with pytest.raises(ModelUnavailable, match=r"no connection to http://127\.0\.0\.1") as caught:
        await model_at(models).call(HELLO)
    assert caught.value.details["code"] == "connection"


async def test_cancelling_a_call_closes_its_request(models: ModelServer) -> None:
    models.script(hang())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(model_at(models).call, HELLO)
        await models.await_for_calls(1)
        tasks.cancel_scope.cancel()
    (call,) = await models.await_for_calls(1, outcome="aborted")
    assert call.status is None


async def test_a_model_can_be_called_again_after_a_failure(models: ModelServer) -> None:
    models.script(disconnect(), reply("there"))
    model = model_at(models)
    with pytest.raises(ModelUnavailable):
        await model.call(HELLO)
    assert (await model.call(HELLO)).text == "there"
