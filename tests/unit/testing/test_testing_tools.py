"""Tool calls: how a test scripts them, what the client gets, and what the provider would not take."""

import json
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response, ResponseFunctionToolCall
from pydantic import BaseModel

from pgrun.testing import ModelServer, reply, tool_call, wrong_shape

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER: Any = {"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": True}
CLOCK: Any = {"type": "function", "name": "get_time", "parameters": PARAMETERS}


class Place(BaseModel):
    city: str


def ask(blocking: OpenAI, given: Any = "Weather?", **more: Any) -> Response:
    response: Response = blocking.responses.create(
        model="gpt-5-mini", input=given, **{"tools": [WEATHER, CLOCK], **more}
    )
    Response.model_validate(response.model_dump(exclude_unset=True))
    return response


def calls_of(response: Response) -> list[ResponseFunctionToolCall]:
    return [item for item in response.output if item.type == "function_call"]


def rejected(blocking: OpenAI, *args: Any, **more: Any) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(blocking, *args, **more)
    return caught.value


def test_a_reply_can_call_tools_after_its_text(server: ModelServer, blocking: OpenAI) -> None:
    server.script(reply("Let me look.", calls=[tool_call("get_weather", {"city": "Köln"}), tool_call("get_time")]))
    response = ask(blocking)

    assert [item.type for item in response.output] == ["message", "function_call", "function_call"]
    assert response.output_text == "Let me look."
    weather, clock = calls_of(response)
    assert (weather.name, weather.arguments, weather.status) == ("get_weather", '{"city": "Köln"}', "completed")
    assert clock.arguments == "{}"
    assert weather.call_id.startswith("call_")
    assert weather.call_id != clock.call_id


def test_a_reply_of_tool_calls_only_has_no_message(server: ModelServer, blocking: OpenAI) -> None:
    broken = tool_call("get_weather", '{"city": ', call_id="call_7")
    server.script(reply(calls=[tool_call("get_weather", Place(city="Rome"))]), reply(calls=[broken]))

    assert [(call.arguments, call.type) for call in calls_of(ask(blocking))] == [('{"city":"Rome"}', "function_call")]
    assert [(call.arguments, call.call_id) for call in calls_of(ask(blocking))] == [('{"city": ', "call_7")]


def test_the_same_scripted_call_gets_a_new_id_each_time(server: ModelServer, blocking: OpenAI) -> None:
    server.always(reply(calls=[tool_call("get_weather")]))

    assert calls_of(ask(blocking))[0].call_id != calls_of(ask(blocking))[0].call_id


def test_the_loop_of_calls_and_outputs_continues_a_stored_response(server: ModelServer, blocking: OpenAI) -> None:
    server.script(reply(calls=[tool_call("get_weather", {"city": "Oslo"})]), "It snows.")
    first = ask(blocking)
    output: Any = {"type": "function_call_output", "call_id": calls_of(first)[0].call_id, "output": "snow"}
    second = ask(blocking, [output], previous_response_id=first.id)
    third = ask(blocking, "Thanks", previous_response_id=second.id)

    assert (second.output_text, second.previous_response_id) == ("It snows.", first.id)
    assert first.usage
    assert third.usage
    assert third.usage.input_tokens > first.usage.total_tokens  # the model reads all that was said before


def test_the_loop_works_with_the_whole_conversation_in_the_input(server: ModelServer, blocking: OpenAI) -> None:
    server.script(reply(calls=[tool_call("get_weather")]), "It snows.")
    first = ask(blocking, store=False)
    (call,) = calls_of(first)
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "snow"}

    assert ask(blocking, ["Weather?", call.model_dump(), output]).output_text == "It snows."


def test_outputs_and_calls_have_to_belong_together(server: ModelServer, blocking: OpenAI) -> None:
    stray: Any = {"type": "function_call_output", "call_id": "call_9", "output": "x"}
    error = rejected(blocking, [stray])
    assert "No tool call found for function call output with call_id call_9." in error.message
    assert error.param == "input"

    server.script(reply(calls=[tool_call("get_weather", call_id="call_1")]))
    first = ask(blocking)
    error = rejected(blocking, "Never mind", previous_response_id=first.id)
    assert "No tool output found for function call call_1." in error.message


def test_an_unknown_previous_response_is_refused(blocking: OpenAI) -> None:
    unstored = ask(blocking, store=False)
    for response_id in ("resp_0", unstored.id):
        error = rejected(blocking, previous_response_id=response_id)
        assert (error.code, error.param) == ("previous_response_not_found", "previous_response_id")
        assert f"Previous response with id '{response_id}' not found." in error.message


def test_strict_parameters_follow_the_rules_of_strict_schemas(blocking: OpenAI) -> None:
    loose = {"type": "object", "properties": {"city": {"type": "string"}}}
    error = rejected(blocking, tools=[CLOCK, {**WEATHER, "parameters": loose}])

    assert "Invalid schema for function 'get_weather': In context=(), 'additionalProperties'" in error.message
    assert (error.param, error.code) == ("tools[1].parameters", "invalid_function_parameters")
    assert ask(blocking, tools=[{**CLOCK, "parameters": loose}]).status == "completed"


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"name": "x"}, "tools[0].type"),
        ({"type": "function"}, "tools[0].name"),
        ({"type": "function", "name": "a b"}, "tools[0].name"),
        ({"type": "function", "name": "x", "parameters": {"type": "array"}}, "tools[0].parameters"),
        ({"type": "function", "name": "x", "strict": True}, "tools[0].parameters"),
    ],
)
def test_tools_that_are_declared_badly_are_refused(blocking: OpenAI, tool: Any, param: str) -> None:
    assert rejected(blocking, tools=[tool]).param == param


@pytest.mark.parametrize(
    ("choice", "more"),
    [
        ("always", {}),
        ("required", {"tools": []}),
        ({"type": "function", "name": "get_weather"}, {"tools": [CLOCK]}),
    ],
)
def test_a_tool_choice_that_cannot_be_followed_is_refused(blocking: OpenAI, choice: Any, more: Any) -> None:
    assert rejected(blocking, tool_choice=choice, **more).param == "tool_choice"


def test_a_made_up_answer_follows_tool_choice(server: ModelServer, blocking: OpenAI) -> None:
    assert calls_of(ask(blocking)) == []
    (call,) = calls_of(ask(blocking, tool_choice="required"))
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "City 1"})
    (call,) = calls_of(ask(blocking, tool_choice={"type": "function", "name": "get_time"}))
    assert call.name == "get_time"
    server.script(wrong_shape())
    (call,) = calls_of(ask(blocking, tool_choice="required"))
    assert json.loads(call.arguments) == {"city": {"unexpected": True}}


def test_without_parallel_tool_calls_the_model_makes_one_at_a_time(server: ModelServer, blocking: OpenAI) -> None:
    server.script(reply(calls=[tool_call("get_weather"), tool_call("get_time")]))

    assert [call.name for call in calls_of(ask(blocking, parallel_tool_calls=False))] == ["get_weather"]


@pytest.mark.parametrize(
    ("scripted", "more"),
    [
        (reply(calls=[tool_call("get_weather")]), {"tool_choice": "none"}),
        (reply(calls=[tool_call("get_weather")]), {"tools": []}),
        (reply("No tools for me."), {"tool_choice": "required"}),
        (reply(calls=[tool_call("get_time")]), {"tool_choice": {"type": "function", "name": "get_weather"}}),
    ],
)
def test_a_script_that_no_model_could_follow_is_told(
    server: ModelServer, blocking: OpenAI, scripted: Any, more: Any
) -> None:
    server.script(scripted)

    error = rejected(blocking, **more)
    assert error.code == "test_script_error"
    assert "ImpossibleReply: it calls" in error.message


def test_tools_are_read_and_billed_like_the_prompt(blocking: OpenAI) -> None:
    with_tools, without = ask(blocking).usage, ask(blocking, tools=[]).usage

    assert with_tools
    assert without
    assert with_tools.input_tokens > without.input_tokens + 50
