"""The turns of an attempt: what is asked, how an invalid answer is mended, and how an attempt ends without an answer."""

from typing import Any

import pytest
from pydantic import BaseModel
from support.models import USAGE, ScriptedModel

from pgrun import (
    ContentFiltered,
    ModelRefused,
    ModelUnavailable,
    OutputInvalid,
    OutputTruncated,
    RunContext,
    RunMetrics,
)
from pgrun.errors import AttemptError
from pgrun.models.base import Message, Model, ModelRequest, ModelResponse, OutputFormat
from pgrun.run._tool_calls import ToolCalls
from pgrun.run._toolset import Toolset
from pgrun.run.loop import MAX_REPAIRS, Turns
from pgrun.run.output import OutputSchema

QUESTION = (Message("system", "You know cities."), Message("user", "Tokyo?"))
VALID = '{"name": "Tokyo", "people": 37}'


class City(BaseModel):
    name: str
    people: int


def turns(model: ScriptedModel, output: Any = City) -> Turns:
    calls = ToolCalls(Toolset(), RunContext(run_id="run-1", session_id=None, agent_name="Cities", attempt=1))
    return Turns(model, QUESTION, None if output is None else OutputSchema.of(output), calls=calls)


def times(count: int) -> RunMetrics:
    return sum((USAGE for _ in range(count)), RunMetrics())


def test_the_scripted_model_is_a_model() -> None:
    assert isinstance(ScriptedModel(), Model)


async def test_plain_text_is_the_answer_as_it_is() -> None:
    model = ScriptedModel("37 million")
    taken = turns(model, None)
    assert await taken.take() == "37 million"
    assert model.asked == [ModelRequest(QUESTION, None)]
    assert taken.metrics == USAGE


async def test_a_valid_answer_is_the_json_data_to_store() -> None:
    model = ScriptedModel(VALID)
    taken = turns(model)
    assert await taken.take() == {"name": "Tokyo", "people": 37}
    schema = OutputSchema.of(City)
    assert model.asked == [ModelRequest(QUESTION, OutputFormat("City", schema.strict_schema))]
    assert taken.metrics == USAGE


async def test_a_wrapped_answer_is_stored_without_its_wrapping() -> None:
    model = ScriptedModel('{"value": [1, 2]}')
    assert await turns(model, list[int]).take() == [1, 2]


@pytest.mark.parametrize("invalid", ['{"name": "Tokyo"}', "Tokyo has 37 million people.", "", '{"name": "Tok'])
async def test_an_invalid_answer_is_shown_to_the_model_with_what_is_wrong(invalid: str) -> None:
    model = ScriptedModel(invalid, VALID)
    taken = turns(model)
    assert await taken.take() == {"name": "Tokyo", "people": 37}
    first, second = model.asked
    assert second.messages[:2] == first.messages == QUESTION
    shown, complaint = second.messages[2:]
    assert shown == Message("assistant", invalid)
    assert complaint.role == "user"
    assert complaint.content.startswith("Your answer does not match the JSON schema City:\n- ")
    assert second.output == first.output
    assert taken.metrics == times(2)


async def test_the_complaint_names_the_field() -> None:
    model = ScriptedModel('{"name": "Tokyo", "people": "many"}', VALID)
    await turns(model).take()
    assert "- people: " in model.asked[1].messages[-1].content


async def test_after_three_invalid_answers_the_attempt_ends_with_the_last_of_them() -> None:
    model = ScriptedModel("one", "two", "three", VALID)
    taken = turns(model)
    with pytest.raises(OutputInvalid, match="The answer does not match City") as caught:
        await taken.take()
    assert len(model.asked) == 1 + MAX_REPAIRS == 3
    assert caught.value.details["raw"] == "three"
    assert caught.value.details["errors"]
    assert [message.content for message in model.asked[2].messages if message.role == "assistant"] == ["one", "two"]
    assert taken.metrics == times(3)


@pytest.mark.parametrize("output", [City, None])
@pytest.mark.parametrize(
    ("response", "error", "details"),
    [
        (ModelResponse("", "refused", "I would rather not."), ModelRefused, {"refusal": "I would rather not."}),
        (ModelResponse('{"name', "truncated"), OutputTruncated, {"raw": '{"name'}),
        (ModelResponse("It is", "filtered"), ContentFiltered, {"raw": "It is"}),
        (ModelResponse("", "filtered", response_id="resp_1"), ContentFiltered, {"response_id": "resp_1"}),
        (ModelResponse(VALID, "truncated", usage=USAGE), OutputTruncated, {"raw": VALID}),
    ],
)
async def test_an_answer_that_came_to_no_end_has_an_error_of_its_own_and_is_not_repaired(
    output: Any, response: ModelResponse, error: type[AttemptError], details: dict[str, str]
) -> None:
    model = ScriptedModel(response)
    taken = turns(model, output)
    with pytest.raises(error) as caught:
        await taken.take()
    assert type(caught.value) is error
    assert caught.value.details == details
    assert len(model.asked) == 1
    assert taken.metrics.total_tokens == response.usage.total_tokens


async def test_a_refusal_says_why() -> None:
    with pytest.raises(ModelRefused, match="the model declined to answer: I would rather not"):
        await turns(ScriptedModel(ModelResponse("", "refused", "I would rather not."))).take()
    with pytest.raises(OutputTruncated, match="raise that of the model or ask for less"):
        await turns(ScriptedModel(ModelResponse("", "truncated"))).take()


async def test_a_refused_repair_ends_the_attempt_with_the_usage_of_both_calls() -> None:
    taken = turns(ScriptedModel("no json", ModelResponse("", "refused", "no", usage=USAGE)))
    with pytest.raises(ModelRefused):
        await taken.take()
    assert taken.metrics == times(2)


async def test_what_a_failing_call_has_cost_is_counted() -> None:
    error = ModelUnavailable("server_error", code="server_error")
    error.metrics = USAGE
    taken = turns(ScriptedModel("no json", error))
    with pytest.raises(ModelUnavailable):
        await taken.take()
    assert taken.metrics == times(2)


async def test_a_call_that_failed_can_be_taken_again_without_losing_the_repair() -> None:
    model = ScriptedModel("no json", ModelUnavailable("later"), VALID)
    taken = turns(model)
    with pytest.raises(ModelUnavailable):
        await taken.take()
    assert await taken.take() == {"name": "Tokyo", "people": 37}
    assert model.asked[2].messages == model.asked[1].messages
    assert taken.metrics == times(2)


async def test_the_answer_that_is_shown_again_can_be_sent() -> None:
    model = ScriptedModel("half a pair: \ud83d", VALID)
    await turns(model).take()
    assert model.asked[1].messages[2] == Message("assistant", "half a pair: \ufffd")


async def test_characters_that_cannot_be_stored_are_replaced() -> None:
    assert await turns(ScriptedModel("a\x00b \ud800"), None).take() == "a\ufffdb \ufffd"
    answer = await turns(ScriptedModel('{"name": "To\\u0000kyo", "people": 1}')).take()
    assert answer == {"name": "To\ufffdkyo", "people": 1}
    with pytest.raises(ModelRefused) as refused:
        await turns(ScriptedModel(ModelResponse("x\x00", "refused", "no\x00"))).take()
    assert refused.value.details == {"refusal": "no\ufffd", "raw": "x\ufffd"}
    assert "\x00" not in str(refused.value)
