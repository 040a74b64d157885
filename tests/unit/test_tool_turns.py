"""The turns of an attempt with tools: what the model is shown of its calls, and how the turns come to an end."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter
from support.models import USAGE, ScriptedModel, calling

from pgrun import ModelRefused, ModelUnavailable, OutputInvalid, RunContext, RunMetrics, ToolFailed, TurnLimitExceeded
from pgrun.models.base import Message, ModelResponse, ToolCall
from pgrun.run._tool_calls import ToolCalls
from pgrun.run._toolset import toolset_of
from pgrun.run.loop import Turns
from pgrun.run.output import OutputSchema

QUESTION = (Message("system", "You know the weather."), Message("user", "Rome?"))
CONTEXT = RunContext(run_id="run-1", session_id=None, agent_name="Weather", attempt=1)
ROME = ("weather", '{"city": "Rome"}')
OSLO = ("weather", '{"city": "Oslo"}')


class Report(BaseModel):
    text: str


def weather(city: str) -> str:
    """Tells the weather."""
    return f"{city}: sun"


def turns(
    model: ScriptedModel,
    *tools: Any,
    output: Any = None,
    limit: int | None = None,
    choice: str | None = None,
    max_turns: int = 30,
) -> Turns:
    toolset = toolset_of(tools or [weather], call_limit=limit, choice=choice, max_turns=max_turns)
    schema = None if output is None else OutputSchema.of(output)
    return Turns(model, QUESTION, schema, calls=ToolCalls(toolset, CONTEXT))


async def test_the_model_is_shown_its_calls_and_their_results_until_it_answers() -> None:
    model = ScriptedModel(calling(ROME, OSLO, text="I look."), calling(ROME), "Sun everywhere.")
    taken = turns(model)
    assert await taken.take() == "Sun everywhere."
    assert model.asked[2].messages == (
        *QUESTION,
        Message("assistant", "I look.", calls=(ToolCall("call_1", *ROME), ToolCall("call_2", *OSLO))),
        Message("tool", "Rome: sun", call_id="call_1"),
        Message("tool", "Oslo: sun", call_id="call_2"),
        Message("assistant", "", calls=(ToolCall("call_1", *ROME),)),
        Message("tool", "Rome: sun", call_id="call_1"),
    )
    assert [[spec.name for spec in asked.tools] for asked in model.asked] == [["weather"]] * 3
    assert taken.metrics == sum((USAGE for _ in range(3)), RunMetrics())
    assert [each.arguments for each in taken.calls.executions] == [{"city": "Rome"}, {"city": "Oslo"}, {"city": "Rome"}]


async def test_a_typed_answer_is_asked_for_in_every_turn_and_repaired_as_ever() -> None:
    model = ScriptedModel(calling(ROME), "sun", calling(OSLO), '{"text": "sun"}')
    taken = turns(model, output=Report)
    assert await taken.take() == {"text": "sun"}
    assert {asked.output.name for asked in model.asked if asked.output} == {"Report"}
    assert [message.role for message in model.asked[3].messages[2:]] == [
        *("assistant", "tool", "assistant", "user", "assistant", "tool")
    ]


async def test_what_the_provider_sent_goes_back_as_it_was() -> None:
    items = [
        {"type": "reasoning", "id": "rs_1", "encrypted_content": "x\x00y"},
        {"type": "function_call", "id": "fc_1"},
    ]
    model = ScriptedModel(calling(ROME, items=items), "Sun.")
    await turns(model).take()
    shown = model.asked[1].messages[2]
    assert shown.items == ({**items[0], "encrypted_content": "x\ufffdy"}, items[1])


async def test_the_conversation_is_json_and_can_be_read_again() -> None:
    wild = ("weather", '{"city": "\ud800\\u0000"}')
    model = ScriptedModel(calling(wild, text="\x00", items=[{"type": "reasoning", "id": "\ud800"}]), "Sun.")
    taken = turns(model)
    await taken.take()
    adapter = TypeAdapter(tuple[Message, ...])
    stored = adapter.dump_json(taken.messages)
    assert adapter.validate_json(stored) == taken.messages
    assert b"\\u0000" not in stored


async def test_a_choice_that_forces_a_call_is_over_after_the_first() -> None:
    for choice in ("required", "weather", "auto"):
        model = ScriptedModel(calling(ROME), calling(OSLO), "Sun.")
        await turns(model, choice=choice).take()
        assert [asked.tool_choice for asked in model.asked] == [choice, None, None]
    model = ScriptedModel("Sun.")
    await turns(model, choice="none").take()
    assert model.asked[0].tool_choice == "none"


async def test_a_model_that_ran_into_the_limit_has_to_answer() -> None:
    model = ScriptedModel(calling(ROME), calling(OSLO, ROME), "Sun.")
    taken = turns(model, limit=2)
    assert await taken.take() == "Sun."
    assert [asked.tool_choice for asked in model.asked] == [None, None, "none"]
    assert model.asked[2].messages[-1].content.startswith("Tool call limit reached. Tool call weather not executed.")
    assert len(taken.calls.executions) == 3


async def test_a_model_that_comes_to_no_end_is_stopped() -> None:
    model = ScriptedModel(*[calling(ROME)] * 5)
    taken = turns(model, max_turns=4)
    with pytest.raises(TurnLimitExceeded, match="no answer within 4 turns; raise max_turns") as caught:
        await taken.take()
    assert caught.value.details == {"turns": 4}
    assert len(model.asked) == len(taken.calls.executions) == 4


async def test_an_invalid_answer_in_the_last_turn_says_what_is_wrong_with_it() -> None:
    with pytest.raises(OutputInvalid) as caught:
        await turns(ScriptedModel(calling(ROME), "sun"), output=Report, max_turns=2).take()
    assert caught.value.details["raw"] == "sun"


async def test_a_tool_that_does_not_exist_is_named_to_the_model_even_if_there_is_none() -> None:
    model = ScriptedModel(calling(("search", "{}")), "Sun.")
    toolset = toolset_of([], call_limit=None, choice=None, max_turns=30)
    assert await Turns(model, QUESTION, calls=ToolCalls(toolset, CONTEXT)).take() == "Sun."
    assert model.asked[1].messages[-1].content == "There is no tool search; there are: none"


async def test_a_refusal_after_a_call_is_a_refusal() -> None:
    taken = turns(ScriptedModel(calling(ROME), ModelResponse("", "refused", refusal="no")))
    with pytest.raises(ModelRefused):
        await taken.take()
    assert len(taken.calls.executions) == 1


async def test_a_call_of_the_model_that_failed_is_taken_again_without_calling_the_tools_again() -> None:
    keys: set[str] = set()

    def note(run: RunContext) -> None:
        keys.add(run.idempotency_key)

    model = ScriptedModel(calling(("note", "{}")), ModelUnavailable("later"), calling(("note", "{}")), "Done.")
    taken = turns(model, note)
    with pytest.raises(ModelUnavailable):
        await taken.take()
    assert await taken.take() == "Done."
    assert len(keys) == len(taken.calls.executions) == 2


async def test_a_tool_can_end_the_attempt() -> None:
    def pay() -> None:
        raise ToolFailed("the card is blocked")

    taken = turns(ScriptedModel(calling(("pay", "{}")), "Paid."), pay)
    with pytest.raises(ToolFailed, match="the card is blocked"):
        await taken.take()
    assert taken.metrics == USAGE
    assert taken.messages == QUESTION, "calls without their results cannot be sent"


async def test_every_message_is_plain_data() -> None:
    model = ScriptedModel(calling(ROME), "Sun.")
    taken = turns(model)
    await taken.take()
    assert json.loads(TypeAdapter(Message).dump_json(taken.messages[2])) == {
        "role": "assistant",
        "content": "",
        "calls": [{"call_id": "call_1", "name": "weather", "arguments": '{"city": "Rome"}'}],
        "call_id": None,
        "items": [],
        "media": [],
    }
