"""OpenAIChat: what goes over the wire to servers that speak Chat Completions."""

import json
from typing import Any

import pytest

from pgrun import OpenAIChat, UsageError
from pgrun.models.base import Message, Model, ModelRequest, OutputFormat, ToolCall, ToolSpec, load_model

HELLO = ModelRequest((Message("user", "Hello"),))
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
OUTPUT = OutputFormat("City", SCHEMA)
PARAMETERS = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
SPEC = ToolSpec("weather", "Tells the weather.", PARAMETERS, strict=True)
CALL = ToolCall("call_1", "weather", '{"city":"Rome"}')


def body(*messages: Message, model: OpenAIChat | None = None, **parts: Any) -> dict[str, Any]:
    return (model or OpenAIChat("llama")).body(ModelRequest(messages or HELLO.messages, **parts))


def test_a_plain_question_is_sent_with_nothing_added() -> None:
    assert body() == {"model": "llama", "messages": [{"role": "user", "content": "Hello"}]}


def test_a_conversation_keeps_its_roles_and_its_order() -> None:
    assert body(Message("system", "s"), Message("user", "u"), Message("assistant", ""), Message("user", "ü"))[
        "messages"
    ] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "ü"},
    ]


def test_system_prompts_that_follow_each_other_become_one() -> None:
    first, second = Message("system", "Be brief."), Message("system", "Be kind.")
    assert body(first, second, Message("user", "u"), second)["messages"] == [
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": "u"},
        {"role": "system", "content": "Be kind."},
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"top_p": 0.5},
        {"max_tokens": 100},
        {"max_completion_tokens": 100},
        {"reasoning_effort": "low"},
        {"verbosity": "low"},
        {"frequency_penalty": 0.0},
        {"presence_penalty": -1.0},
        {"seed": 0},
        {"stop": ["END"]},
        {"stop": "END"},
        {"store": False},
        {"metadata": {"team": "a"}},
        {"user": "u-7"},
        {"service_tier": "flex"},
        {"extra_body": {"top_k": 3}},
    ],
)
def test_an_option_is_sent_as_it_is_and_changes_nothing_else(options: dict[str, Any]) -> None:
    assert body(model=OpenAIChat("llama", **options), output=OUTPUT) == body(output=OUTPUT) | options


def test_a_typed_answer_is_asked_for_with_its_schema() -> None:
    asked = body(output=OUTPUT)
    schema = {"name": "City", "schema": SCHEMA, "strict": True}
    assert asked["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert asked["messages"] == [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(("form", "sent"), [("json_object", {"type": "json_object"}), ("prompt", None)])
def test_servers_that_know_no_schemas_are_shown_it_in_the_prompt(form: Any, sent: dict[str, str] | None) -> None:
    model = OpenAIChat("llama", structured_output=form)
    asked = body(Message("system", "Be brief."), Message("user", "Rome?"), model=model, output=OUTPUT)
    assert asked.get("response_format") == sent
    system, user = asked["messages"]
    assert user == {"role": "user", "content": "Rome?"}
    assert system["role"] == "system"
    assert system["content"].startswith("Be brief.\n\nYour final answer has to be one JSON object")
    assert json.loads(system["content"].rpartition(":\n")[2]) == SCHEMA
    assert body(model=model) == body(), "nothing is added where no type is asked for"


def test_a_prompt_is_made_for_the_schema_where_there_is_none() -> None:
    system, user = body(model=OpenAIChat("llama", structured_output="prompt"), output=OUTPUT)["messages"]
    assert (system["role"], user) == ("system", {"role": "user", "content": "Hello"})
    assert "JSON Schema" in system["content"]


def test_tools_are_offered_as_functions() -> None:
    function = {"name": "weather", "description": "Tells the weather.", "parameters": PARAMETERS}
    assert body(tools=(SPEC,))["tools"] == [{"type": "function", "function": {**function, "strict": True}}]
    loose = ToolSpec("weather", "Tells the weather.", PARAMETERS, strict=False)
    assert body(tools=(loose,))["tools"] == [{"type": "function", "function": function}]
    assert "tool_choice" not in body(tools=(SPEC,))
    assert not {"tools", "tool_choice"} & body(tool_choice="auto").keys()


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_a_choice_is_sent_as_it_is(choice: str) -> None:
    assert body(tools=(SPEC,), tool_choice=choice)["tool_choice"] == choice


def test_the_name_of_a_tool_forces_its_call() -> None:
    choice = body(tools=(SPEC,), tool_choice="weather")["tool_choice"]
    assert choice == {"type": "function", "function": {"name": "weather"}}


def test_whether_tools_are_called_at_once_is_said_only_where_there_are_some() -> None:
    model = OpenAIChat("llama", parallel_tool_calls=False)
    assert body(model=model, tools=(SPEC,))["parallel_tool_calls"] is False
    assert body(model=model) == body()


def test_calls_and_results_become_messages_whatever_another_provider_sent() -> None:
    items = ({"type": "reasoning", "id": "rs_1"},)
    sent = body(
        Message("assistant", "I look.", calls=(CALL,), items=items),
        Message("tool", "sun", call_id="call_1"),
        Message("assistant", "", calls=(CALL,)),
        Message("tool", "", call_id="call_1"),
    )["messages"]
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
    assert sent == [
        {"role": "assistant", "content": "I look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": ""},
    ]


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ('{"a": 1} ', '{"a": 1} '),
        ("", "{}"),
        ('{"a": ', '{"invalid": "{\\"a\\": "}'),
        ("[1]", '{"invalid": "[1]"}'),
        ('{"a": NaN}', '{"invalid": "{\\"a\\": NaN}"}'),
        ("[" * 5000, json.dumps({"invalid": "[" * 5000})),
    ],
)
def test_arguments_that_are_no_object_go_back_in_one(written: str, sent: str) -> None:
    message = Message("assistant", "", calls=(ToolCall("call_1", "weather", written),))
    assert body(message)["messages"][0]["tool_calls"][0]["function"]["arguments"] == sent


def test_a_request_leaves_the_options_of_its_model_alone() -> None:
    model = OpenAIChat("llama", structured_output="prompt", parallel_tool_calls=False)
    assert body(model=model, output=OUTPUT) == body(model=model, output=OUTPUT)


def test_a_definition_makes_an_equal_model_and_has_no_secret() -> None:
    model = OpenAIChat(
        "llama",
        api_key="geheim",
        base_url="http://localhost:11434/v1",
        structured_output="prompt",
        stop=["END"],
        seed=7,
    )
    definition = model.definition()
    assert definition == {
        "provider": "openai.chat",
        "id": "llama",
        "timeout": 600.0,
        "base_url": "http://localhost:11434/v1",
        "structured_output": "prompt",
        "stop": ["END"],
        "seed": 7,
    }
    loaded = load_model(definition)
    assert isinstance(loaded, OpenAIChat)
    assert isinstance(loaded, Model)
    assert loaded.definition() == definition
    assert loaded.body(HELLO) == model.body(HELLO)
    assert "geheim" not in repr(model) + repr(model.__dict__)
    assert repr(model) == "OpenAIChat(id='llama')"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"id": ""}, r"OpenAIChat\(id=''\) needs the name of a model"),
        ({"base_url": "localhost:11434"}, "a URL that begins with http"),
        ({"timeout": 0}, "seconds, more than 0"),
        ({"structured_output": "yaml"}, "one of json_schema, json_object, prompt"),
        ({"max_output_tokens": 5}, "does not know the option max_output_tokens of OpenAIChat"),
        ({"api_key": "stolen"}, "does not know the option api_key"),
    ],
)
def test_a_definition_that_cannot_be_a_model_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_model({"provider": "openai.chat", "id": "llama", **options})
