"""AgentDefinition: it survives being stored, and makes the conversation that a run begins with."""

import json
from typing import Any

import pytest

from pgrun import OpenAIResponses, RetryPolicy, UsageError
from pgrun.models.base import Message
from pgrun.run.definition import AgentDefinition

MODEL = {"provider": "openai.responses", "id": "gpt-5-mini"}


def definition(**parts: Any) -> AgentDefinition:
    return AgentDefinition(OpenAIResponses("gpt-5-mini"), **parts)


def stored(agent: AgentDefinition) -> Any:
    """What comes back from the database: JSON, its keys sorted."""
    return json.loads(json.dumps(agent.to_json(), sort_keys=True))


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"description": "You know cities."},
        {"instructions": ("Be brief.", "Be right.")},
        {"retry": RetryPolicy(max_attempts=2, base_delay=0.5, max_delay=9, jitter=0)},
        {"description": "a", "instructions": ("b",), "retry": RetryPolicy(jitter=0.5)},
    ],
)
def test_a_definition_survives_being_stored(parts: dict[str, Any]) -> None:
    original = definition(**parts)
    loaded = AgentDefinition.from_json(stored(original))
    assert loaded.to_json() == original.to_json()
    assert (loaded.description, loaded.instructions) == (original.description, original.instructions)
    assert loaded.retry == original.retry
    assert loaded.messages("hi") == original.messages("hi")


def test_what_is_at_its_default_is_not_stored() -> None:
    assert stored(definition()) == {"model": {**MODEL, "timeout": 600.0}}
    assert stored(definition(retry=RetryPolicy(max_attempts=2)))["retry"] == {"max_attempts": 2}


def test_a_person_may_write_one_by_hand() -> None:
    loaded = AgentDefinition.from_json({"model": MODEL, "instructions": "Answer in one word."})
    assert loaded.messages("hi")[0] == Message("system", "Answer in one word.")
    assert loaded.retry == RetryPolicy()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "definition.model is missing: give {"),
        ({"model": "gpt-5-mini"}, "definition.model is missing: give {"),
        ({"model": MODEL, "tools": [], "memory": 1}, "this pgrun does not know memory, tools"),
        (
            {"model": {"provider": "acme", "id": "x"}},
            "unknown model provider 'acme'; this pgrun knows openai.responses, openai.chat",
        ),
        ({"model": {"id": "x"}}, "unknown model provider None"),
        ({"model": {**MODEL, "warmth": 1}}, "does not know the option warmth of OpenAIResponses"),
        ({"model": {**MODEL, "id": ""}}, "needs the name of a model"),
        ({"model": {**MODEL, "base_url": 5}}, "definition: "),
        ({"model": {**MODEL, "provider": []}}, "definition: "),
        ({"model": MODEL, "description": 5}, "description: a text, not 5"),
        ({"model": MODEL, "instructions": [5]}, r"instructions: a text or a list of texts, not \[5\]"),
        ({"model": MODEL, "instructions": {"a": "b"}}, "instructions: a text or a list of texts"),
        ({"model": MODEL, "retry": {"attempts": 3}}, "definition: .*'attempts'"),
        ({"model": MODEL, "retry": {"max_attempts": 0}}, "max_attempts is 0"),
        ({"model": MODEL, "retry": {"jitter": "much"}}, "definition: "),
        ({"model": MODEL, "retry": None}, "definition: .*RetryPolicy"),
        ([], r"definition: an object, not \[\]"),
        ("gpt-5-mini", "definition: an object, not 'gpt-5-mini'"),
    ],
)
def test_what_is_wrong_with_a_definition_is_named(data: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        AgentDefinition.from_json(data)


@pytest.mark.parametrize(
    ("parts", "prompt"),
    [
        ({"description": "You know cities."}, "You know cities."),
        ({"instructions": ("Be brief.",)}, "Be brief."),
        ({"instructions": ("Be brief.", "Be right.")}, "- Be brief.\n- Be right."),
        ({"description": "You know cities.", "instructions": ("Be brief.",)}, "You know cities.\nBe brief."),
        ({"description": "Cities.", "instructions": ("Brief.", "Right.")}, "Cities.\n- Brief.\n- Right."),
    ],
)
def test_the_system_prompt_is_the_description_then_the_instructions(parts: dict[str, Any], prompt: str) -> None:
    assert definition(**parts).messages("hi") == (Message("system", prompt), Message("user", "hi"))


@pytest.mark.parametrize("parts", [{}, {"description": ""}, {"instructions": ()}, {"instructions": ("",)}])
def test_without_a_prompt_the_conversation_begins_with_the_user(parts: dict[str, Any]) -> None:
    assert definition(**parts).messages("hi") == (Message("user", "hi"),)


def test_a_list_of_messages_is_a_conversation() -> None:
    conversation = [
        {"role": "developer", "content": "Speak French."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Bonjour"},
        {"role": "user", "content": "Goodbye"},
    ]
    assert definition(description="You translate.").messages(conversation) == (
        Message("system", "You translate."),
        Message("system", "Speak French."),
        Message("user", "Hello"),
        Message("assistant", "Bonjour"),
        Message("user", "Goodbye"),
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"city": "Zürich", "n": 3}, '{"city": "Zürich", "n": 3}'),
        ([], "[]"),
        (None, "null"),
        (3, "3"),
        (["a", "b"], '["a", "b"]'),
        ([{"role": "user", "content": "hi", "name": "x"}], '[{"role": "user", "content": "hi", "name": "x"}]'),
        ([{"role": "tool", "content": "hi"}], '[{"role": "tool", "content": "hi"}]'),
        ([{"role": ["user"], "content": "hi"}], '[{"role": ["user"], "content": "hi"}]'),
        ([{"role": "user", "content": 5}], '[{"role": "user", "content": 5}]'),
        ([{"role": "user", "content": "hi"}, "and"], '[{"role": "user", "content": "hi"}, "and"]'),
    ],
)
def test_any_other_data_is_shown_to_the_model_as_json(data: Any, text: str) -> None:
    assert definition().messages(data) == (Message("user", text),)
