"""What an Agent refuses when it is declared, long before a call is paid."""

from typing import Any

import pytest
from pydantic import BaseModel

from pgrun import Agent, OpenAIResponses, PostgresDb, RetryPolicy, UsageError
from pgrun._agents_here import registered_agents


class Tags(BaseModel):
    tags: dict[str, str]


class Place(BaseModel):
    name: str
    details: Tags


class Opaque:
    pass


def declare(**options: Any) -> Agent[Any]:
    return Agent(**{"name": "Declared", "model": "gpt-5-mini", **options})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"model": None}, r'Agent "Declared" needs a model, for example model=OpenAIResponses\(id="gpt-5-mini"\)'),
        ({"model": ""}, "needs the name of a model"),
        ({"model": 42}, "model=42: give a model"),
        ({"model": OpenAIResponses}, "model=<class .*: give a model"),
        ({"name": ""}, "Agent.name='': a text that is not empty"),
        ({"name": None}, "Agent.name=None: a text"),
        ({"name": "a\x00b"}, r"Agent.name: contains NUL"),
        ({"name": "a\ud800"}, r"Agent.name: contains the lone surrogate"),
        ({"queue": ""}, "Agent.queue='': a text that is not empty"),
        ({"queue": "a\x00"}, "Agent.queue: contains NUL"),
        ({"db": "postgresql://h/app"}, r'Agent "Declared": db must be a PostgresDb, not str'),
        ({"description": 5}, "description: a text, not 5"),
        ({"description": "a\x00"}, r'Agent "Declared".description: contains NUL'),
        ({"instructions": 5}, "instructions: a text or a list of texts, not 5"),
        ({"instructions": ["a", 5]}, "instructions: a text or a list of texts"),
        ({"instructions": ["a", "b\x00"]}, r'Agent "Declared".instructions\[1\]: contains NUL'),
        ({"retry": RetryPolicy(max_delay=float("inf"))}, r'Agent "Declared".retry.max_delay: is inf'),
        ({"output_schema": "City"}, "'City' is no type"),
        ({"output_schema": {"type": "what"}}, "JSON has no type 'what'"),
        ({"output_schema": {"type": "object", "properties": {"a": {}}}}, "output.a: any value is allowed here"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        declare(**wrong)


@pytest.mark.parametrize(
    ("output_type", "says"),
    [
        (Tags, r"Tags.tags: dict\[str, ...\] has no fixed keys; use a list of key/value objects"),
        (Place, r"Place.details.tags: dict\[str, ...\] has no fixed keys"),
        (list[Place], r"\[\].details.tags: dict\[str, ...\]"),
        (dict[str, int], r"dict\[str, ...\] has no fixed keys"),
        (tuple[int, str], "a tuple has no names for its items"),
        (Any, "any value is allowed here"),
        (bytes, "bytes are no text"),
        (object, "object"),
        (Opaque, "Opaque cannot be an output type"),
    ],
)
def test_a_type_that_strict_mode_cannot_carry_is_refused_with_its_field(output_type: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        declare(output_schema=output_type)


def test_an_unknown_keyword_is_named() -> None:
    with pytest.raises(UsageError, match=r'Agent "Declared" has no option warmth=; see AgentOptions'):
        declare(warmth=1)


def test_what_other_packages_call_otherwise_is_said() -> None:
    with pytest.raises(UsageError, match="has no option knowledge=, response_model=; use instead of knowledge= a tool"):
        declare(knowledge=1, response_model=int)


def test_what_was_refused_is_not_registered() -> None:
    with pytest.raises(UsageError):
        declare(name="Refused", output_schema=Tags)
    assert "Refused" not in registered_agents()


def test_of_two_agents_with_one_name_the_later_counts() -> None:
    declare(name="Twice", description="first")
    second = declare(name="Twice", description="second")
    assert registered_agents()["Twice"] is second


def test_a_model_may_be_just_its_id() -> None:
    assert declare().stored_definition == declare(model=OpenAIResponses("gpt-5-mini")).stored_definition
    assert repr(declare()) == "<Agent Declared, OpenAIResponses(id='gpt-5-mini')>"


def test_declaring_connects_to_nothing() -> None:
    agent = declare(db=PostgresDb("postgresql://nowhere.invalid/app"), output_schema=list[int])
    assert agent.output_schema is not None
    assert agent.output_schema.is_wrapped
