"""Chat completions as the real client reads them, whole and streamed."""

from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from pgrun.testing import (
    ModelServer,
    Usage,
    cut,
    failed,
    filtered,
    rate_limited,
    refusal,
    reply,
    server_error,
    tool_call,
    truncated,
)

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS, "strict": True}}
USAGE = Usage(100, 60, cached_tokens=64, reasoning_tokens=10)


class City(BaseModel):
    city: str
    population: int


def ask(blocking: OpenAI, given: Any = "Hello", **more: Any) -> ChatCompletion:
    messages: Any = [{"role": "user", "content": given}] if isinstance(given, str) else given
    completion: ChatCompletion = blocking.chat.completions.create(model="gpt-4o", messages=messages, **more)
    # The client parses leniently; this is the strict reading of the shape it declares.
    ChatCompletion.model_validate(completion.model_dump(exclude_unset=True))
    return completion


def stream(blocking: OpenAI, **more: Any) -> list[ChatCompletionChunk]:
    messages: Any = [{"role": "user", "content": "Hello"}]
    chunks = list(blocking.chat.completions.create(model="gpt-4o", messages=messages, stream=True, **more))
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.model_dump(exclude_unset=True))
    return chunks


def rejected(blocking: OpenAI, *args: Any, **more: Any) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(blocking, *args, **more)
    return caught.value


def test_an_unscripted_call_gets_a_text_that_shows_its_question(server: ModelServer, blocking: OpenAI) -> None:
    completion = ask(blocking, [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}])

    (choice,) = completion.choices
    assert (choice.message.content, choice.finish_reason) == ("A made-up answer to: Why?", "stop")
    assert completion.id.startswith("chatcmpl-")
    assert (server.calls[0].text, server.calls[0].response_id) == ("Why?", completion.id)


def test_scripts_match_on_messages(server: ModelServer, blocking: OpenAI) -> None:
    server.script("Paris", match="France")

    assert ask(blocking).choices[0].message.content != "Paris"
    assert ask(blocking, "The capital of France?").choices[0].message.content == "Paris"


def test_usage_is_told_and_billed(server: ModelServer, blocking: OpenAI) -> None:
    server.script(reply("x", usage=USAGE))
    completion = ask(blocking)

    usage = completion.usage
    assert usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (100, 60, 160)
    assert usage.prompt_tokens_details
    assert usage.prompt_tokens_details.cached_tokens == 64
    assert usage.completion_tokens_details
    assert usage.completion_tokens_details.reasoning_tokens == 10
    assert server.paid_by_response == {completion.id: USAGE}


@pytest.mark.parametrize(
    ("answer", "content", "refused", "reason"),
    [
        (refusal("No."), None, "No.", "stop"),
        (truncated('{"ci'), '{"ci', None, "length"),
        (filtered(""), "", None, "content_filter"),
        (reply(""), "", None, "stop"),
    ],
)
def test_endings(
    server: ModelServer, blocking: OpenAI, answer: Any, content: str | None, refused: str | None, reason: str
) -> None:
    server.always(answer)
    (choice,) = ask(blocking).choices
    assert (choice.message.content, choice.message.refusal, choice.finish_reason) == (content, refused, reason)

    chunks = stream(blocking)
    text = [chunk.choices[0].delta.content or "" for chunk in chunks]
    said = [chunk.choices[0].delta.refusal or "" for chunk in chunks]
    assert ("".join(text) or None, "".join(said) or None) == (content or None, refused)
    assert chunks[-1].choices[0].finish_reason == reason


def test_a_completion_cannot_fail_after_http_has_said_200(server: ModelServer, blocking: OpenAI) -> None:
    server.script(failed())

    assert rejected(blocking).code == "test_script_error"


def test_schemas_are_followed_and_checked(blocking: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Facts"}]
    parsed = blocking.chat.completions.parse(model="m", messages=messages, response_format=City)
    assert parsed.choices[0].message.parsed == City(city="City 1", population=1)

    loose = {"name": "City", "strict": True, "schema": {"type": "object", "properties": {}}}
    error = rejected(blocking, response_format={"type": "json_schema", "json_schema": loose})
    assert "Invalid schema for response_format 'City': In context=()" in error.message
    assert error.param == "response_format"


def test_tools_are_called_and_answered(server: ModelServer, blocking: OpenAI) -> None:
    server.script(reply(calls=[tool_call("get_weather", {"city": "Oslo"})]), "It snows.")
    (choice,) = ask(blocking, tools=[TOOL]).choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("get_weather", '{"city": "Oslo"}')

    question = {"role": "user", "content": "Weather?"}
    answer = {"role": "tool", "tool_call_id": call.id, "content": "snow"}
    talk = [question, choice.message.model_dump(exclude_none=True), answer]
    assert ask(blocking, talk, tools=[TOOL]).choices[0].message.content == "It snows."
    assert call.id in rejected(blocking, talk[:2], tools=[TOOL]).message
    assert "messages with role 'tool' must be a response" in rejected(blocking, [question, answer]).message


def test_tools_are_checked_and_chosen(blocking: OpenAI) -> None:
    loose = {"type": "function", "function": {"name": "x", "strict": True, "parameters": {"type": "object"}}}
    error = rejected(blocking, tools=[loose])
    assert "Invalid schema for function 'x'" in error.message
    assert error.param == "tools[0].function.parameters"

    chosen = {"type": "function", "function": {"name": "get_weather"}}
    (call,) = ask(blocking, tools=[TOOL], tool_choice=chosen).choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.arguments == '{"city": "City 1"}'


def test_a_text_is_streamed_in_chunks(server: ModelServer, blocking: OpenAI) -> None:
    server.script(reply("Oslo, in Norway", deltas=3))
    chunks = stream(blocking)

    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "Oslo,", " in N", "orway", None]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 4 + ["stop"]
    assert {chunk.id for chunk in chunks} == {server.calls[0].response_id}
    assert (server.calls[0].outcome, server.paid) == ("answered", 1)


def test_the_last_chunk_tells_the_usage_where_it_is_asked_for(server: ModelServer, blocking: OpenAI) -> None:
    server.script(reply("x", usage=USAGE))
    *chunks, last = stream(blocking, stream_options={"include_usage": True})

    assert {chunk.usage for chunk in chunks} == {None}
    assert last.choices == []
    assert last.usage
    assert last.usage.total_tokens == 160


def test_tool_calls_are_streamed(server: ModelServer, blocking: OpenAI) -> None:
    server.script(reply(calls=[tool_call("get_weather", {"city": "Oslo"}), tool_call("get_weather")]))
    messages: Any = [{"role": "user", "content": "Weather?"}]
    with blocking.chat.completions.stream(model="m", messages=messages, tools=[TOOL]) as events:
        completion = events.get_final_completion()

    calls = completion.choices[0].message.tool_calls or []
    assert [call.function.arguments for call in calls] == ['{"city": "Oslo"}', "{}"]
    assert len({call.id for call in calls}) == 2


def test_a_cut_stream_is_paid_as_far_as_it_came(server: ModelServer, blocking: OpenAI) -> None:
    server.script(cut(reply("abcdef", deltas=6, usage=USAGE), after_events=4))

    with pytest.raises(openai.APIConnectionError):
        stream(blocking)
    assert (server.calls[0].outcome, server.paid_tokens.output_tokens) == ("dropped", 30)


def test_a_stream_can_break_with_an_error(server: ModelServer, blocking: OpenAI) -> None:
    server.script(cut("abc", after_events=2, error=server_error()))

    with pytest.raises(openai.APIError, match="The server had an error"):
        stream(blocking)


def test_errors_are_the_providers(server: ModelServer, blocking: OpenAI) -> None:
    server.script(rate_limited())

    with pytest.raises(openai.RateLimitError):
        ask(blocking)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": ""}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"tools": 7}, "tools"),
        ({"stream_options": []}, "stream_options"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"n": 2}, "n"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.name"),
    ],
)
def test_requests_the_provider_would_not_take(blocking: OpenAI, body: Any, param: str) -> None:
    assert rejected(blocking, extra_body=body).param == param
