"""OpenAIResponses when the provider answers: the text, how it ended, and what it cost."""

from typing import Any

import pytest
from openai.types.responses import Response
from support.asking import model_at

from pgrun import ModelUnavailable, RunMetrics
from pgrun.models._openai_answer import response_from
from pgrun.models.base import Message, ModelRequest, ModelResponse
from pgrun.testing import ModelServer, Usage, filtered, refusal, reply, truncated

HELLO = ModelRequest((Message("user", "Hello"),))
USED = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 0},
    "output_tokens": 50,
    "output_tokens_details": {"reasoning_tokens": 20},
    "total_tokens": 150,
}


def message(*parts: dict[str, Any], **facts: Any) -> dict[str, Any]:
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [*parts], **facts}


def said(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def received(*output: dict[str, Any], **facts: Any) -> Response:
    """A response as the SDK hands it out: constructed from whatever came, without validation."""
    body = {
        "id": "resp_1",
        "object": "response",
        "model": "gpt-5-mini-2026",
        "status": "completed",
        "output": [*output],
    }
    response: Response = Response.construct(
        **{**body, "usage": None, "error": None, "incomplete_details": None, **facts}
    )
    return response


async def test_a_completed_answer_has_its_text_its_usage_and_its_ids(models: ModelServer) -> None:
    models.script(reply("Hi there", usage=Usage(100, 50, cached_tokens=64, reasoning_tokens=20)))
    response = await model_at(models).call(HELLO)
    assert (response.text, response.ending, response.refusal) == ("Hi there", "completed", None)
    assert response.usage == RunMetrics(
        input_tokens=100, output_tokens=50, total_tokens=150, cached_tokens=64, reasoning_tokens=20
    )
    assert response.model == "gpt-5-mini"
    assert str(response.response_id).startswith("resp_")


async def test_a_refusal_is_no_text(models: ModelServer) -> None:
    models.script(refusal("I would rather not."))
    response = await model_at(models).call(HELLO)
    assert (response.text, response.ending, response.refusal) == ("", "refused", "I would rather not.")
    assert response.usage.total_tokens > 0


async def test_an_incomplete_answer_says_what_cut_it(models: ModelServer) -> None:
    models.script(truncated('{"city": "Tok'), filtered("It is"))
    first, second = [await model_at(models).call(HELLO) for _ in range(2)]
    assert (first.text, first.ending) == ('{"city": "Tok', "truncated")
    assert (second.text, second.ending) == ("It is", "filtered")
    assert first.usage.total_tokens > 0


@pytest.mark.parametrize("details", [None, {"reason": None}, {"reason": "max_output_tokens"}, {"reason": "new_reason"}])
def test_an_incomplete_answer_without_a_known_reason_counts_as_truncated(details: Any) -> None:
    assert response_from(received(status="incomplete", incomplete_details=details)).ending == "truncated"


def test_the_text_is_what_the_final_answer_says() -> None:
    response = received(
        {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Let me think."}]},
        message(said("First I look it up."), phase="commentary"),
        message(said('{"a"'), said(": 1}"), phase="final_answer"),
    )
    assert response_from(response).text == '{"a": 1}'
    assert response_from(received(message(said("a")), message(said("b")))).text == "ab"
    assert response_from(received()).text == ""


def test_a_refusal_beside_text_is_a_refusal() -> None:
    response = response_from(received(message(said("Well"), {"type": "refusal", "refusal": "no"})))
    assert (response.ending, response.refusal, response.text) == ("refused", "no", "Well")


@pytest.mark.parametrize(
    ("usage", "metrics"),
    [
        (
            USED,
            {
                "input_tokens": 100,
                "output_tokens": 50,
                "total_tokens": 150,
                "cached_tokens": 64,
                "reasoning_tokens": 20,
            },
        ),
        (
            {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9},
            {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9},
        ),
        (
            {**USED, "input_tokens_details": None, "output_tokens_details": {"reasoning_tokens": None}},
            {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150},
        ),
        (
            {**USED, "input_tokens": None, "input_tokens_details": {}},
            {"output_tokens": 50, "total_tokens": 150, "reasoning_tokens": 20},
        ),
        ({}, {}),
        (None, {}),
    ],
)
def test_servers_that_leave_usage_out_are_understood(usage: Any, metrics: dict[str, int]) -> None:
    assert response_from(received(message(said("a")), usage=usage)).usage == RunMetrics(**metrics)


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled", "a status of tomorrow"])
def test_a_response_that_has_not_ended_is_asked_for_again(status: str) -> None:
    with pytest.raises(ModelUnavailable, match="the response ended as"):
        response_from(received(status=status))


@pytest.mark.parametrize(
    "answer",
    [
        "<html>Please log in</html>",
        ["a", "list"],
        None,
        received(output=None),
        received(message() | {"content": None}),
        received(message({"type": "output_text", "text": None})),
        received(message({"type": "hologram"})),
        received("no item"),  # type: ignore[arg-type]
        received(message(said("a")), usage={"input_tokens": "many"}),
    ],
)
def test_what_is_no_response_is_asked_for_again(answer: Any) -> None:
    with pytest.raises(ModelUnavailable, match="the server sent something else than a response") as caught:
        response_from(answer)
    assert caught.value.details == {"code": "unreadable"}
    assert len(str(caught.value)) < 400


def test_an_answer_is_not_lost_over_what_a_server_leaves_out() -> None:
    bare: Response = Response.construct(output=[{"type": "message", "content": [said("Yes")]}])
    assert response_from(bare) == ModelResponse("Yes")
    assert response_from(received(message(said("Yes")), usage="none")).usage == RunMetrics()


@pytest.mark.parametrize("error", [None, "overloaded", {}, {"message": "overloaded"}])
def test_a_failed_response_that_does_not_say_why_is_asked_for_again(error: Any) -> None:
    with pytest.raises(ModelUnavailable, match=r"the provider failed \(failed\): ") as caught:
        response_from(received(status="failed", error=error))
    assert caught.value.details == {"code": "failed", "response_id": "resp_1"}


def test_what_a_failed_response_has_used_is_kept() -> None:
    error = {"code": "server_error", "message": "Overheated."}
    with pytest.raises(ModelUnavailable, match="Overheated") as caught:
        response_from(received(status="failed", error=error, usage=USED))
    assert caught.value.metrics.total_tokens == 150
