"""OpenAIResponses with tools: how they are offered, how calls are read, and what goes back after them."""

from typing import Any

import pytest
from openai.types.responses import Response
from support.responses_api import response_body, responses_api

from pgrun import Agent, ModelUnavailable, OpenAIResponses, tool
from pgrun.models._openai_answer import response_from
from pgrun.models.base import Message, ModelRequest, ToolCall, ToolSpec

HELLO = (Message("user", "Rome?"),)
SCHEMA = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
SPEC = ToolSpec("weather", "Tells the weather.", SCHEMA, strict=True)

REASONING = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "I need the weather."}],
    "encrypted_content": "gAAAA",
}
COMMENTARY = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "phase": "commentary",
    "content": [{"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}],
}
CALL = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_1",
    "name": "weather",
    "arguments": '{"city":"Rome"}',
}
OTHER_CALL = {**CALL, "id": "fc_2", "call_id": "call_2", "arguments": '{"city":"Oslo"}'}


def said(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"id": "msg_9", "type": "message", "role": "assistant", "status": "completed", "content": content}


def received(*output: dict[str, Any], **facts: Any) -> Response:
    response: Response = Response.construct(**response_body(*output, **facts))
    return response


def body(model: OpenAIResponses | None = None, **parts: Any) -> dict[str, Any]:
    request: dict[str, Any] = {"messages": HELLO, "tools": (SPEC,), **parts}
    return (model or OpenAIResponses("gpt-5-mini")).body(ModelRequest(**request))


def test_tools_are_offered_as_functions() -> None:
    assert body()["tools"] == [
        {
            "type": "function",
            "name": "weather",
            "description": "Tells the weather.",
            "parameters": SCHEMA,
            "strict": True,
        }
    ]
    assert "tool_choice" not in body()
    assert not {"tools", "tool_choice"} & body(tools=(), tool_choice="auto").keys()


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_a_choice_is_sent_as_it_is(choice: str) -> None:
    assert body(tool_choice=choice)["tool_choice"] == choice


def test_the_name_of_a_tool_forces_its_call() -> None:
    assert body(tool_choice="weather")["tool_choice"] == {"type": "function", "name": "weather"}


def test_calls_are_read_with_their_arguments_as_they_are() -> None:
    response = response_from(received(REASONING, COMMENTARY, CALL, OTHER_CALL))
    assert response.ending == "completed"
    assert response.calls == (
        ToolCall("call_1", "weather", '{"city":"Rome"}'),
        ToolCall("call_2", "weather", '{"city":"Oslo"}'),
    )
    assert response.usage.total_tokens == 15


def test_what_was_put_out_beside_calls_is_kept_as_it_came() -> None:
    unknown = {**REASONING, "a_field_of_tomorrow": {"a": [1]}}
    assert response_from(received(unknown, COMMENTARY, CALL)).items == (unknown, COMMENTARY, CALL)
    assert response_from(received(REASONING, said("Sun."))).items == (), "nothing goes back after an answer"


def test_calls_that_were_cut_off_are_not_made() -> None:
    cut = {**CALL, "arguments": '{"ci', "status": "incomplete"}
    response = response_from(received(cut, status="incomplete", incomplete_details={"reason": "max_output_tokens"}))
    assert (response.ending, response.calls) == ("truncated", ())


def test_a_call_without_the_id_under_which_it_is_answered_cannot_be_read() -> None:
    with pytest.raises(ModelUnavailable, match="something else than a response"):
        response_from(received({key: value for key, value in CALL.items() if key != "call_id"}))


def test_calls_and_results_become_items() -> None:
    calls = (ToolCall("call_1", "weather", '{"city":"Rome"}'), ToolCall("call_2", "map", "{}"))
    messages = (
        *HELLO,
        Message("assistant", "I look.", calls=calls),
        Message("tool", "sun", call_id="call_1"),
        Message("tool", "", call_id="call_2"),
        Message("assistant", "", calls=calls[:1]),
    )
    assert body(messages=messages)["input"] == [
        {"role": "user", "content": "Rome?"},
        {"role": "assistant", "content": "I look."},
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Rome"}'},
        {"type": "function_call", "call_id": "call_2", "name": "map", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "sun"},
        {"type": "function_call_output", "call_id": "call_2", "output": ""},
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Rome"}'},
    ]


def test_what_the_provider_sent_is_sent_instead_of_our_words() -> None:
    asked = Message("assistant", "I look.", calls=(ToolCall("call_1", "weather", "{}"),), items=(REASONING, CALL))
    assert body(messages=(*HELLO, asked))["input"][1:] == [REASONING, CALL]


def test_thoughts_that_the_provider_does_not_store_are_asked_for_to_be_sent_back() -> None:
    thoughts = ["reasoning.encrypted_content"]
    assert body(OpenAIResponses("gpt-5-mini", store=False))["include"] == thoughts
    assert body(OpenAIResponses("gpt-5-mini", store=False, include=thoughts))["include"] == thoughts
    both = ["message.output_text.logprobs", *thoughts]
    assert body(OpenAIResponses("gpt-5-mini", store=False, include=both[:1]))["include"] == both
    assert "include" not in body(OpenAIResponses("gpt-5-mini"))
    assert "include" not in body(OpenAIResponses("gpt-4o", store=False)), "it does not think"
    assert "include" not in body(OpenAIResponses("gpt-5-mini", store=False), tools=())


def test_whether_a_model_calls_several_tools_at_once_is_its_option() -> None:
    assert body(OpenAIResponses("gpt-5-mini", parallel_tool_calls=False))["parallel_tool_calls"] is False


async def test_a_conversation_with_calls_over_the_wire() -> None:
    @tool
    async def weather(city: str) -> str:
        """Tells the weather."""
        return f"{city}: sun"

    with responses_api([REASONING, COMMENTARY, CALL, OTHER_CALL], [said("Sun in both.")]) as api:
        model = OpenAIResponses("gpt-5-mini", base_url=api.base_url, api_key="test")
        agent = Agent(name="Weather", model=model, tools=[weather], tool_choice="required")
        run = await agent.arun("Rome and Oslo?")
    assert run.content == "Sun in both."
    assert run.metrics.total_tokens == 30
    assert [(each.name, each.arguments, each.result) for each in run.tools] == [
        ("weather", {"city": "Rome"}, "Rome: sun"),
        ("weather", {"city": "Oslo"}, "Oslo: sun"),
    ]
    first, second = api.asked
    assert first["tools"] == second["tools"]
    assert (first["tool_choice"], second.get("tool_choice")) == ("required", None)
    assert second["input"] == [
        {"role": "user", "content": "Rome and Oslo?"},
        *(REASONING, COMMENTARY, CALL, OTHER_CALL),
        {"type": "function_call_output", "call_id": "call_1", "output": "Rome: sun"},
        {"type": "function_call_output", "call_id": "call_2", "output": "Oslo: sun"},
    ]
