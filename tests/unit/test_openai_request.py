"""OpenAIResponses: what goes over the wire, seen by a server that speaks the Responses API."""

from typing import Any

import pytest
from support.asking import model_at
from support.city_facts import CITY_FACTS, CityFactsResponse

from pgrun import Agent, OpenAIResponses, UsageError
from pgrun.models.base import Message, Model, ModelRequest, OutputFormat
from pgrun.testing import ModelServer

HELLO = ModelRequest((Message("user", "Hello"),))
FORMAT = {"type": "json_schema", "name": "A", "schema": {"type": "object"}, "strict": True}


async def test_programs_that_users_bring_along_send_what_they_always_sent(models: ModelServer) -> None:
    agent = Agent(
        name="CityFactsAgent",
        model=model_at(models),
        description="An agent that provides structured facts about cities.",
    )
    await agent.arun("Give me facts about Tokyo, Paris, and New York.", output_schema=CityFactsResponse)
    (call,) = models.calls
    assert call.body == {
        "model": "gpt-5-mini",
        "input": [
            {"role": "developer", "content": "An agent that provides structured facts about cities."},
            {"role": "user", "content": "Give me facts about Tokyo, Paris, and New York."},
        ],
        "reasoning": {},
        "store": True,
        "text": {"format": {"type": "json_schema", "name": "CityFactsResponse", "schema": CITY_FACTS, "strict": True}},
    }
    sent = call.body["text"]["format"]["schema"]["$defs"]["CityFact"]["properties"]
    assert [*sent] == ["city", "country", "population", "fun_fact"], "the model fills properties in as they come"


async def test_plain_questions_are_sent_without_a_format(models: ModelServer) -> None:
    agent = Agent(name="QuizAgent", model=model_at(models), description="An agent that answers trivia questions.")
    await agent.arun("What is the longest river in the world? Answer in one sentence.")
    (call,) = models.calls
    assert call.body == {
        "model": "gpt-5-mini",
        "input": [
            {"role": "developer", "content": "An agent that answers trivia questions."},
            {"role": "user", "content": "What is the longest river in the world? Answer in one sentence."},
        ],
        "reasoning": {},
        "store": True,
    }


async def test_a_conversation_keeps_its_roles_and_its_order(models: ModelServer) -> None:
    messages = (Message("system", "s"), Message("user", "u"), Message("assistant", "a"), Message("user", "ü 😀"))
    await model_at(models).call(ModelRequest(messages))
    assert models.calls[0].body["input"] == [
        {"role": "developer", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "ü 😀"},
    ]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"temperature": 0.0}, {"temperature": 0.0}),
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"max_output_tokens": 100}, {"max_output_tokens": 100}),
        ({"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}),
        ({"reasoning_summary": "auto"}, {"reasoning": {"summary": "auto"}}),
        ({"reasoning": {"effort": "high"}}, {"reasoning": {"effort": "high"}}),
        (
            {"reasoning": {"effort": "high"}, "reasoning_summary": "auto"},
            {"reasoning": {"effort": "high", "summary": "auto"}},
        ),
        ({"reasoning": {"effort": "high"}, "reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}),
        ({"verbosity": "low"}, {"text": {"verbosity": "low", "format": FORMAT}}),
        ({"store": False}, {"store": False}),
        ({"metadata": {"team": "a"}}, {"metadata": {"team": "a"}}),
        ({"user": "u-7"}, {"user": "u-7"}),
        ({"truncation": "auto"}, {"truncation": "auto"}),
        ({"service_tier": "flex"}, {"service_tier": "flex"}),
        ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
        ({"include": ["reasoning.encrypted_content"]}, {"include": ["reasoning.encrypted_content"]}),
    ],
)
def test_an_option_goes_where_the_api_wants_it_and_changes_nothing_else(
    options: dict[str, Any], part: dict[str, Any]
) -> None:
    request = ModelRequest(HELLO.messages, OutputFormat("A", {"type": "object"}))
    plain = OpenAIResponses("gpt-5-mini").body(request)
    assert OpenAIResponses("gpt-5-mini", **options).body(request) == plain | part


async def test_extra_body_is_merged_into_what_is_sent(models: ModelServer) -> None:
    await model_at(models, extra_body={"priority_hint": 3}).call(HELLO)
    assert models.calls[0].body["priority_hint"] == 3
    assert "extra_body" not in models.calls[0].body


def test_a_request_leaves_the_options_of_its_model_alone() -> None:
    model = OpenAIResponses("gpt-5-mini", reasoning={"effort": "low"}, reasoning_summary="auto", verbosity="low")
    assert model.body(HELLO) == model.body(HELLO)


@pytest.mark.parametrize("name", ["gpt-5-mini", "gpt-5", "gpt-5.1", "gpt-6", "o3", "o3-mini", "o4-mini"])
def test_responses_of_models_that_think_are_stored(name: str) -> None:
    assert OpenAIResponses(name).body(HELLO)["store"] is True


@pytest.mark.parametrize("name", ["gpt-4o", "gpt-4.1-mini", "o1", "my-gpt-5", "llama"])
def test_whether_others_are_stored_is_left_to_the_account(name: str) -> None:
    assert "store" not in OpenAIResponses(name).body(HELLO)
    assert OpenAIResponses(name, store=True).body(HELLO)["store"] is True


async def test_the_sdk_does_not_retry_and_sends_the_key_it_was_given(models: ModelServer) -> None:
    await model_at(models, organization="org-1").call(HELLO)
    headers = models.calls[0].headers
    assert headers["authorization"] == "Bearer own-key"
    assert headers["openai-organization"] == "org-1"
    assert headers["x-stainless-retry-count"] == "0"


def test_a_definition_makes_an_equal_model_and_has_no_secret() -> None:
    model = OpenAIResponses(
        "gpt-4o",
        api_key="geheim",
        base_url="https://example.org/v1",
        organization="org-1",
        timeout=30.0,
        temperature=0.0,
        reasoning_effort="low",
        metadata={"a": "b"},
    )
    definition = model.definition()
    assert definition == {
        "provider": "openai.responses",
        "id": "gpt-4o",
        "timeout": 30.0,
        "temperature": 0.0,
        "reasoning_effort": "low",
        "metadata": {"a": "b"},
        "base_url": "https://example.org/v1",
        "organization": "org-1",
    }
    loaded = OpenAIResponses.from_definition(definition)
    assert loaded.definition() == definition
    assert loaded.body(HELLO) == model.body(HELLO)
    assert "geheim" not in repr(model) + repr(model.__dict__)


def test_what_cannot_be_a_model_is_refused() -> None:
    with pytest.raises(UsageError, match="needs the name of a model"):
        OpenAIResponses("")
    with pytest.raises(UsageError, match=r"does not know the option top_k, warmth of OpenAIResponses"):
        OpenAIResponses.from_definition({"provider": "openai.responses", "id": "m", "warmth": 1, "top_k": 2})
    with pytest.raises(UsageError, match="does not know the option api_key"):
        OpenAIResponses.from_definition({"provider": "openai.responses", "id": "m", "api_key": "stolen"})


def test_it_is_a_model() -> None:
    assert isinstance(OpenAIResponses(), Model)
    assert OpenAIResponses().id == "gpt-5-mini"
