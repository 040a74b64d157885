"""OpenAIChat when a server answers: the text, how it ended, what it cost, and all that compatible servers do otherwise."""

from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from pgrun import ModelRejected, ModelUnavailable, QuotaExceeded, RunMetrics
from pgrun.errors import AttemptError
from pgrun.models._chat_answer import answer_from
from pgrun.models.base import ModelResponse, ToolCall

USED = {
    "prompt_tokens": 100,
    "prompt_tokens_details": {"cached_tokens": 64},
    "completion_tokens": 50,
    "completion_tokens_details": {"reasoning_tokens": 20},
    "total_tokens": 150,
}
FUNCTION = {"name": "weather", "arguments": '{"city":"Rome"}'}
CALL = {"id": "call_1", "type": "function", "function": FUNCTION}


def received(reason: str | None = "stop", *, usage: Any = None, **message: Any) -> ChatCompletion:
    """A completion as the SDK hands it out: constructed from whatever came, without validation."""
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", **message}}
    return constructed(id="chatcmpl-1", model="llama-2026", choices=[choice], usage=usage)


def constructed(**body: Any) -> ChatCompletion:
    completion: ChatCompletion = ChatCompletion.construct(**body)
    return completion


def test_a_completed_answer_has_its_text_its_usage_and_its_ids() -> None:
    assert answer_from(received(content="Hi", refusal=None, usage=USED)) == ModelResponse(
        "Hi",
        usage=RunMetrics(input_tokens=100, output_tokens=50, total_tokens=150, cached_tokens=64, reasoning_tokens=20),
        response_id="chatcmpl-1",
        model="llama-2026",
    )


@pytest.mark.parametrize(
    ("reason", "ending"),
    [
        ("stop", "completed"),
        (None, "completed"),
        ("a reason of tomorrow", "completed"),
        ("length", "truncated"),
        ("content_filter", "filtered"),
    ],
)
def test_why_it_ended_is_said_in_our_words(reason: str | None, ending: str) -> None:
    assert answer_from(received(reason, content="It is")).ending == ending


def test_a_filtered_answer_may_come_without_any_message() -> None:
    answer = constructed(choices=[{"finish_reason": "content_filter"}])
    assert answer_from(answer) == ModelResponse("", "filtered")


def test_a_refusal_is_no_text() -> None:
    response = answer_from(received(content=None, refusal="I would rather not."))
    assert (response.text, response.ending, response.refusal) == ("", "refused", "I would rather not.")


@pytest.mark.parametrize("reason", ["tool_calls", "stop", None])
def test_calls_are_calls_whatever_the_server_says_about_its_end(reason: str | None) -> None:
    response = answer_from(received(reason, content="I look.", tool_calls=[CALL]))
    assert (response.text, response.ending, response.items) == ("I look.", "completed", ())
    assert response.calls == (ToolCall("call_1", "weather", '{"city":"Rome"}'),)


def test_calls_that_were_cut_off_are_not_made() -> None:
    response = answer_from(received("length", content=None, tool_calls=[CALL]))
    assert (response.ending, response.calls) == ("truncated", ())


@pytest.mark.parametrize("no_id", [{}, {"id": None}, {"id": ""}])
def test_a_call_without_an_id_gets_one_of_its_own(no_id: dict[str, Any]) -> None:
    calls = answer_from(received(tool_calls=[{"type": "function", "function": FUNCTION, **no_id}] * 2)).calls
    assert len({call.call_id for call in calls}) == 2
    assert all(call.call_id.isalnum() and len(call.call_id) == 9 for call in calls)


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ({"arguments": None}, ""),
        ({"arguments": ""}, ""),
        ({}, ""),
        ({"arguments": {"city": "Rôme"}}, '{"city": "Rôme"}'),
    ],
)
def test_arguments_are_text_however_they_come(arguments: dict[str, Any], read: str) -> None:
    function = {"name": "weather", **arguments}
    assert answer_from(received(tool_calls=[{**CALL, "function": function}])).calls[0].arguments == read


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ("<think>\nRome is old.\n</think>\n\nYes", "Yes"),
        ("<think></think>{}", "{}"),
        ("Write <think>so</think>", "Write <think>so</think>"),
        ("<think>never ends", "<think>never ends"),
        ([{"type": "thinking", "thinking": []}, {"type": "text", "text": "Y"}, {"type": "text", "text": "es"}], "Yes"),
    ],
)
def test_the_text_is_what_is_said_without_thoughts(content: Any, text: str) -> None:
    assert answer_from(received(content=content)).text == text


@pytest.mark.parametrize(
    ("usage", "metrics"),
    [
        (None, {}),
        ({}, {}),
        ({"prompt_tokens": 7, "completion_tokens": 2}, {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}),
        ({**USED, "prompt_tokens_details": None, "completion_tokens_details": None}, {}),
    ],
)
def test_servers_that_leave_usage_out_are_understood(usage: Any, metrics: dict[str, int]) -> None:
    if usage and "total_tokens" in usage:
        metrics = {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150}
    assert answer_from(received(content="a", usage=usage)).usage == RunMetrics(**metrics)


def test_an_answer_is_not_lost_over_what_a_server_leaves_out() -> None:
    assert answer_from(constructed(choices=[{"message": {"content": "Yes"}}])) == ModelResponse("Yes")
    assert answer_from(constructed(choices=[{"message": {}}])) == ModelResponse("")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 502, "message": "overloaded"}, ModelUnavailable),
        ({"code": "429", "message": "slow down"}, ModelUnavailable),
        ({"code": 400, "message": "too long"}, ModelRejected),
        ({"code": 402, "message": "no credits"}, QuotaExceeded),
        ({"code": "server_error", "message": "overheated"}, ModelUnavailable),
        ({"message": "overheated"}, ModelUnavailable),
        ("overheated", ModelUnavailable),
    ],
)
def test_a_failure_inside_an_answer_is_a_failure(error: Any, kind: type[AttemptError]) -> None:
    words = error if isinstance(error, str) else error["message"]
    choice = {"message": {"content": "It"}, "finish_reason": "error", "error": error}
    for answer in (constructed(error=error, usage=USED), constructed(choices=[choice], usage=USED)):
        with pytest.raises(kind, match=words) as caught:
            answer_from(answer)
        assert caught.value.metrics.total_tokens == 150


def test_a_failure_that_does_not_say_why_is_asked_for_again() -> None:
    with pytest.raises(ModelUnavailable, match="the provider failed: no reason given"):
        answer_from(received("error", content="It"))


@pytest.mark.parametrize(
    "answer",
    [
        "<html>Please log in</html>",
        ["a", "list"],
        None,
        constructed(),
        constructed(choices=[]),
        constructed(choices=None),
        constructed(choices={"a": 1}),
        constructed(choices=[None]),
        constructed(choices=[{"finish_reason": "stop"}]),
        received(content=7),
        received(content=["text"]),
        received(content="a", usage={"prompt_tokens": "many"}),
        received(tool_calls=[{"id": "call_1", "type": "function", "function": {"arguments": "{}"}}]),
        received(tool_calls=[{"id": "call_1", "type": "function", "function": {"name": None, "arguments": "{}"}}]),
        received(tool_calls=["weather"]),
    ],
)
def test_what_is_no_completion_is_asked_for_again(answer: Any) -> None:
    with pytest.raises(ModelUnavailable, match="the server sent something else than a completion") as caught:
        answer_from(answer)
    assert caught.value.details == {"code": "unreadable"}
    assert len(str(caught.value)) < 400
