"""An agent where tools are expected: what the other one's model is told about it."""

import pytest
from support.models import ScriptedModel

from pgrun import Agent, UsageError


def agent(name: str, description: str | None = None) -> Agent[str]:
    return Agent(name=name, model=ScriptedModel(), description=description)


def test_its_name_is_made_one_that_models_accept() -> None:
    assert agent("City facts (new)").as_tool().name == "City_facts_new"
    assert agent("City facts").as_tool(name="cities").name == "cities"
    with pytest.raises(UsageError, match="tool name ''"):
        agent("都市").as_tool()


def test_its_description_is_what_the_model_reads_unless_another_is_given() -> None:
    facts = agent("Facts", "Knows cities.")
    assert facts.as_tool().spec.description == "Knows cities."
    assert facts.as_tool(description="Ask it about cities.").spec.description == "Ask it about cities."
    assert agent("Facts").as_tool().spec.description == "Asks another agent."
    assert facts.as_tool().spec.parameters["required"] == ["request"]
    assert facts.as_tool().spec.strict


def test_two_agents_of_one_name_cannot_be_told_apart() -> None:
    with pytest.raises(UsageError, match="Facts is there twice"):
        Agent(name="Writer", model=ScriptedModel(), tools=[agent("Facts"), agent("Facts")])


def test_the_class_is_no_agent() -> None:
    with pytest.raises(UsageError, match="neither a function nor a tool nor an agent"):
        Agent(name="Writer", model=ScriptedModel(), tools=[Agent])
