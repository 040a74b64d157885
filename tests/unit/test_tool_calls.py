"""The calls of one turn: what they return, what goes wrong in them, and what the model is shown of it."""

import asyncio
import threading
import time
from contextvars import ContextVar
from dataclasses import replace
from datetime import date
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from pgrun import RunContext, Tool, ToolExecution, ToolFailed, tool
from pgrun.models.base import Message, ToolCall
from pgrun.run._tool_calls import ToolCalls
from pgrun.run._toolset import toolset_of

CONTEXT = RunContext(run_id="run-1", session_id="s", agent_name="Weather", attempt=2, metadata={"user": 7})
seen: ContextVar[str] = ContextVar("seen", default="nothing")


class Forecast(BaseModel):
    city: str
    day: date


async def answer(function: Any, *arguments: str, limit: int | None = None) -> list[ToolExecution]:
    """Calls one function once for each of these arguments, all in one turn."""
    calls = ToolCalls(toolset_of([function], call_limit=limit, choice=None, max_turns=30), CONTEXT)
    name = function.name if isinstance(function, Tool) else function.__name__
    asked = [ToolCall(f"call_{number}", name, text) for number, text in enumerate(arguments)]
    messages = await calls.answer(asked)
    assert [(each.role, each.call_id) for each in messages] == [("tool", call.call_id) for call in asked]
    assert [each.content for each in messages] == [each.error or each.result for each in calls.executions]
    return calls.executions


async def test_a_result_is_shown_and_kept_with_its_call() -> None:
    def weather(city: str) -> str:
        return f"{city}: sun"

    (made,) = await answer(weather, '{"city": "Rome"}')
    assert 0 <= made.duration < 5
    assert made == ToolExecution(
        call_id="call_0", name="weather", arguments={"city": "Rome"}, result="Rome: sun", duration=made.duration
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("sun\x00 \ud800", "sun\ufffd \ufffd"),
        ("", ""),
        (None, "null"),
        (3, "3"),
        ({"a": [1, None]}, '{"a":[1,null]}'),
        (Forecast(city="Rome", day=date(2026, 1, 2)), '{"city":"Rome","day":"2026-01-02"}'),
        ([Forecast(city="Rome", day=date(2026, 1, 2))], '[{"city":"Rome","day":"2026-01-02"}]'),
        (ValueError("returned"), '"returned"'),
    ],
)
async def test_a_text_is_shown_as_it_is_and_anything_else_as_json(value: Any, shown: str) -> None:
    def give() -> Any:
        return value

    (made,) = await answer(give, "{}")
    assert (made.result, made.error) == (shown, None)


async def test_a_plain_function_runs_in_a_thread_and_an_async_one_on_the_loop() -> None:
    def plain() -> bool:
        return threading.current_thread() is threading.main_thread()

    async def on_loop() -> bool:
        return threading.current_thread() is threading.main_thread()

    assert [each.result for each in await answer(plain, "{}")] == ["false"]
    assert [each.result for each in await answer(on_loop, "{}")] == ["true"]


async def test_a_plain_function_that_returns_a_coroutine_is_awaited() -> None:
    async def late() -> str:
        return "awaited"

    def plain() -> Any:
        return late()

    assert [each.result for each in await answer(plain, "{}")] == ["awaited"]


async def test_calls_execute_side_by_side_and_their_results_keep_the_order_of_the_calls() -> None:
    ended: list[int] = []
    last = anyio.Event()

    async def wait(number: int) -> int:
        if number < 3:
            await last.wait()
        last.set()
        ended.append(number)
        return number

    made = await answer(wait, *(f'{{"number": {number}}}' for number in range(4)))
    assert ended[0] == 3
    assert [each.result for each in made] == ["0", "1", "2", "3"]


async def test_at_most_ten_calls_execute_at_once() -> None:
    most, now = 0, 0

    async def count() -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await anyio.sleep(0.001)
        now -= 1

    assert len(await answer(count, *["{}"] * 25)) == 25
    assert most == 10


async def test_what_a_call_sets_in_its_context_no_other_sees() -> None:
    async def look(word: str) -> str:
        before = seen.get()
        seen.set(word)
        return before

    made = await answer(look, '{"word": "a"}', '{"word": "b"}')
    assert [each.result for each in made] == ["nothing", "nothing"]
    assert seen.get() == "nothing"


async def keys_of(*turns: list[str]) -> dict[str, list[str]]:
    """The keys of the calls of one attempt, by their arguments, which make a call unique with the number of its like."""
    keys: dict[str, list[str]] = {}

    async def refund(order: int, run: RunContext) -> None:
        keys.setdefault(str(order), []).append(run.idempotency_key)

    calls = ToolCalls(toolset_of([refund], call_limit=None, choice=None, max_turns=30), CONTEXT)
    for turn in turns:
        await calls.answer([ToolCall("c", "refund", f'{{"order": {order}}}') for order in turn])
    return keys


async def test_a_tool_is_told_of_the_run_that_calls_it() -> None:
    contexts: list[RunContext] = []

    def remember(run: RunContext) -> None:
        contexts.append(run)

    await answer(remember, "{}")
    assert contexts == [replace(CONTEXT, idempotency_key=contexts[0].idempotency_key)]
    assert contexts[0].idempotency_key.startswith("run-1/remember/")


async def test_each_call_has_a_key_of_its_own_also_if_it_is_made_again_on_purpose() -> None:
    keys = await keys_of(["7", "8", "7"], ["7"])
    assert len({key for each in keys.values() for key in each}) == 4


async def test_another_attempt_that_asks_for_the_same_in_another_order_has_the_same_keys() -> None:
    assert await keys_of(["7", "8", "7"]) == await keys_of(["8"], ["7"], [" 7"])


async def test_a_call_that_failed_has_the_same_key_when_it_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    keys: list[str] = []

    async def refund(run: RunContext) -> None:
        keys.append(run.idempotency_key)
        if len(keys) == 1:
            raise ConnectionError("lost, nobody knows when")

    calls = ToolCalls(toolset_of([refund], call_limit=None, choice=None, max_turns=30), CONTEXT)
    call = ToolCall("c", "refund", "{}")
    for turn in ([call, call], [call], [call]):
        await calls.answer(turn)
    failed, beside, again, another = keys
    assert failed == again
    assert len({failed, beside, another}) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ('{"city": "Rome"}', "Invalid arguments: days: Field required"),
        ('{"city": "Rome", "days": "many"}', "Invalid arguments: days: Input should be a valid integer"),
        ('{"city": "Rome", "days": 1, "unit": "C"}', "Invalid arguments: unit: Extra inputs are not permitted"),
        ('{"city": "Ro', "Invalid arguments: Invalid JSON: EOF"),
        ("[1]", "Invalid arguments: Input should be an object"),
        ("", "Invalid arguments: city: Field required; days: Field required"),
    ],
)
async def test_arguments_that_do_not_fit_are_shown_to_the_model_and_nothing_is_called(
    arguments: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    def weather(city: str, days: int) -> None:
        raise AssertionError("called")

    (made,) = await answer(weather, arguments)
    assert str(made.error).startswith(says)
    assert made.result is None
    assert caplog.text == ""


async def test_the_complaint_does_not_repeat_what_was_given() -> None:
    def pay(amount: int) -> None: ...

    (made,) = await answer(pay, '{"amount": "secret"}')
    assert "secret" not in str(made.error)


@pytest.mark.parametrize("arguments", ["[1]", '{"a"', '"a"', '{"number": 1e400}', '{"number": NaN}'])
async def test_arguments_that_are_no_json_object_are_kept_as_text(arguments: str) -> None:
    def give(number: int = 1) -> None: ...

    (made,) = await answer(give, arguments)
    assert made.arguments == arguments


async def test_a_name_that_no_tool_has_is_shown_to_the_model() -> None:
    def weather() -> None: ...
    def map(city: str) -> None: ...

    calls = ToolCalls(toolset_of([weather, map], call_limit=None, choice=None, max_turns=30), CONTEXT)
    (message,) = await calls.answer([ToolCall("c", "forecast", "{}")])
    assert message == Message("tool", "There is no tool forecast; there are: weather, map", call_id="c")


async def test_an_exception_is_shown_to_the_model_and_logged_for_people(caplog: pytest.LogCaptureFixture) -> None:
    def weather(city: str) -> str:
        raise KeyError(city)

    made = await answer(weather, '{"city": "Rome"}', '{"city": "Oslo"}')
    assert [each.error for each in made] == ["KeyError: 'Rome'", "KeyError: 'Oslo'"]
    assert "tool weather of run run-1 raised" in caplog.text
    assert "in weather" in caplog.text


async def test_a_fault_of_the_tool_in_reading_data_is_not_blamed_on_the_arguments(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def load() -> None:
        Forecast.model_validate({"city": 5})

    (made,) = await answer(load, "{}")
    assert str(made.error).startswith("ValidationError: 2 validation errors for Forecast")


async def test_a_long_error_does_not_fill_the_context(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("x" * 1_000_000 + "\x00")

    (made,) = await answer(fail, "{}")
    assert len(str(made.error)) == 1000
    assert str(made.error).endswith("x…")


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError(), TimeoutError("too late")])
async def test_whatever_a_tool_raises_the_run_goes_on(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    async def leave() -> None:
        raise error

    (made,) = await answer(leave, "{}")
    assert str(made.error).startswith(type(error).__name__)


async def test_after_its_timeout_an_async_tool_is_cancelled_and_a_thread_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cancelled, release = anyio.Event(), threading.Event()

    @tool(timeout=0.02)
    async def wait() -> None:
        try:
            await anyio.sleep(60)
        finally:
            cancelled.set()

    @tool(timeout=0.02)
    def block() -> None:
        release.wait(15)

    assert [each.error for each in await answer(wait, "{}")] == ["TimeoutError: no result within 0.02 s"]
    assert cancelled.is_set()
    began = time.monotonic()
    assert [each.error for each in await answer(block, "{}")] == ["TimeoutError: no result within 0.02 s"]
    assert time.monotonic() - began < 10
    release.set()


async def test_a_tool_can_end_the_run_and_the_other_calls_are_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    started = anyio.Event()

    async def pay(amount: int) -> str:
        if amount == 1:
            started.set()
            await anyio.sleep(60)
        await started.wait()
        raise ToolFailed("the card is blocked", card="1234")

    calls = ToolCalls(toolset_of([pay], call_limit=None, choice=None, max_turns=30), CONTEXT)
    with pytest.raises(ToolFailed, match="the card is blocked") as caught:
        await calls.answer([ToolCall("c", "pay", f'{{"amount": {amount}}}') for amount in (1, 2)])
    assert caught.value.details == {"card": "1234"}
    assert [each.error for each in calls.executions] == [None, "ToolFailed: the card is blocked"]
    assert caplog.records == []


async def test_beyond_the_limit_nothing_is_executed_and_the_model_is_told() -> None:
    called: list[int] = []

    def count(number: int) -> int:
        called.append(number)
        return number

    made = await answer(count, *(f'{{"number": {number}}}' for number in range(3)), limit=2)
    assert sorted(called) == [0, 1]
    assert [each.result for each in made] == ["0", "1", None]
    assert made[2].error == "Tool call limit reached. Tool call count not executed. Don't try to execute it again."


async def test_cancelling_the_run_cancels_what_is_under_way_and_shows_it() -> None:
    said: list[str] = []
    started = anyio.Event()

    async def wait() -> None:
        started.set()
        try:
            await anyio.sleep(60)
        except anyio.get_cancelled_exc_class():
            said.append("cancelled")
            raise

    calls = ToolCalls(toolset_of([wait], call_limit=None, choice=None, max_turns=30), CONTEXT)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: calls.answer([ToolCall("c", "wait", "{}")]))
        await started.wait()
        group.cancel_scope.cancel()
    assert said == ["cancelled"]
    (made,) = calls.executions
    assert (made.result, made.error) == (None, None)
