"""Calls of the model as the journal sees them: noted before they are used, taken up by id, made twice only if that may be."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from support.watching import Remembering

from pgrun import LeaseLost, ModelCallLost, ModelUnavailable, RetryPolicy, RunContext, UsageError
from pgrun.models.base import Message, ModelRequest, ModelResponse
from pgrun.run._calls import Calls
from pgrun.run._tool_calls import ToolCalls
from pgrun.run._toolset import Toolset
from pgrun.run.journal import CallUnderWay, Journal
from pgrun.run.loop import Turns

HELLO = ModelRequest((Message("user", "Hello"),))
Work = Callable[[ModelRequest], Awaitable[ModelResponse]]


class Notes(Journal):
    """Remembers what it was told; `note` is what a note waits for."""

    keeps_calls = True

    def __init__(self, call: CallUnderWay | None = None) -> None:
        super().__init__(call=call)
        self.noted: list[tuple[int, str | None]] = []
        self.waited: list[bool] = []
        self.may_note = anyio.Event()
        self.may_note.set()
        self.is_stale = False

    async def note_call(self, number: int, response_id: str | None) -> None:
        await self.may_note.wait()
        if self.is_stale:
            raise LeaseLost("it belongs to another")
        self.noted.append((number, response_id))

    def wait(self, waits: bool) -> None:
        super().wait(waits)
        self.waited.append(waits)


class Provider:
    """A model that does what it is told, and remembers what it was asked."""

    provider = id = "scripted"

    def __init__(self, *work: Work) -> None:
        self.asked: list[ModelRequest] = []
        self._work = iter(work)

    def definition(self) -> dict[str, Any]:
        return {}

    async def call(self, request: ModelRequest) -> ModelResponse:
        self.asked.append(request)
        return await next(self._work)(request)


async def answers(request: ModelRequest) -> ModelResponse:
    if request.response_id is None:
        request.watch.created("resp_1")
    request.watch.text("Hi")
    return ModelResponse("Hi")


async def hangs(request: ModelRequest) -> ModelResponse:
    request.watch.created("resp_1")
    await anyio.sleep_forever()
    raise AssertionError


def fails(error: Exception) -> Work:
    async def fail(request: ModelRequest) -> ModelResponse:
        raise error

    return fail


def unavailable(answer: Any) -> ModelUnavailable:
    error = ModelUnavailable("away", code="connection")
    error.answer = answer
    return error


async def test_an_answer_is_not_used_before_its_id_is_noted() -> None:
    journal = Notes()
    journal.may_note = anyio.Event()
    used: list[ModelResponse] = []
    watch = Remembering()

    async def make() -> None:
        request = ModelRequest(HELLO.messages, watch=watch)
        used.append(await Calls(Provider(answers), journal).make(3, request))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make)
        await anyio.wait_all_tasks_blocked()
        assert (watch.told, used) == ([("created", "resp_1"), ("text", "Hi")], [])
        journal.may_note.set()
    assert journal.noted == [(3, "resp_1")]
    assert [response.text for response in used] == ["Hi"]


async def test_an_attempt_waits_from_the_note_to_the_answer() -> None:
    journal = Notes()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Calls(Provider(hangs), journal).make, 1, HELLO)
        await anyio.wait_all_tasks_blocked()
        assert journal.waits
        tasks.cancel_scope.cancel()
    assert not journal.waits
    again = Notes(CallUnderWay(1, "resp_1"))
    await Calls(Provider(answers), again).make(1, HELLO)
    assert again.waited == [True, False]


async def test_an_id_is_noted_although_the_attempt_is_stopped_in_that_moment() -> None:
    journal = Notes()
    with anyio.CancelScope() as scope:

        async def stopped(request: ModelRequest) -> ModelResponse:
            request.watch.created("resp_1")
            scope.cancel()
            await anyio.sleep_forever()
            raise AssertionError

        await Calls(Provider(stopped), journal).make(1, HELLO)
    assert scope.cancelled_caught
    assert journal.noted == [(1, "resp_1")]


async def test_a_call_of_a_run_that_belongs_to_another_is_left() -> None:
    journal = Notes()
    journal.is_stale = True
    with pytest.raises(LeaseLost):
        await Calls(Provider(hangs), journal).make(1, HELLO)


@pytest.mark.parametrize("error", [unavailable("none"), ValueError("a fault"), SystemExit(3)])
async def test_what_a_model_raises_comes_out_as_itself(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        await Calls(Provider(fails(error)), Notes()).make(1, HELLO)
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "leaves"),
    [(unavailable("pending"), True), (unavailable("none"), False), (ValueError("a fault"), True), (None, False)],
)
async def test_an_attempt_that_fails_leaves_an_answer_that_can_still_be_had(error: Any, leaves: bool) -> None:
    async def begins(request: ModelRequest) -> ModelResponse:
        request.watch.created("resp_1")
        if error is not None:
            raise error
        return ModelResponse("Hi")

    journal = Notes()
    with suppress(ModelUnavailable, ValueError):
        await Calls(Provider(begins), journal).make(1, HELLO)
    assert journal.leaves_call is leaves
    with suppress(ModelUnavailable, ValueError):
        await Calls(Provider(fails(error or ValueError())), journal).make(2, HELLO)
    assert not journal.leaves_call, "of this one there is no id"


async def test_a_call_that_is_under_way_is_taken_up_and_no_other() -> None:
    model = Provider(answers, answers)
    calls = Calls(model, Notes(CallUnderWay(3, "resp_7")))
    await calls.make(3, HELLO)
    await calls.make(4, HELLO)
    assert [request.response_id for request in model.asked] == ["resp_7", None]


@pytest.mark.parametrize("found", [CallUnderWay(1, None), CallUnderWay(1, "resp_7")])
async def test_a_call_that_is_lost_is_made_again_if_that_may_be(found: CallUnderWay) -> None:
    lost = [] if found.response_id is None else [fails(ModelCallLost("gone"))]
    model, journal = Provider(*lost, answers), Notes(found)
    assert (await Calls(model, journal).make(1, HELLO)).text == "Hi"
    assert [request.response_id for request in model.asked][-1] is None
    assert journal.noted == [(1, "resp_1")]
    careful = Provider(*lost)
    with pytest.raises(ModelCallLost):
        await Calls(careful, Notes(found), "fail").make(1, HELLO)
    assert len(careful.asked) == len(lost)


async def test_the_intent_is_written_only_where_it_decides_something() -> None:
    for ambiguous, noted in (("retry", [(1, "resp_1")]), ("fail", [(1, None), (1, "resp_1")])):
        journal = Notes()
        await Calls(Provider(answers), journal, ambiguous).make(1, HELLO)  # type: ignore[arg-type]
        assert journal.noted == noted


@pytest.mark.parametrize("answer", ["none", "pending", "unknown"])
async def test_a_call_whose_end_nobody_knows_is_lost_if_it_may_not_be_made_twice(answer: str) -> None:
    for ambiguous in ("retry", "fail"):
        with pytest.raises((ModelUnavailable, ModelCallLost)) as caught:
            await Calls(Provider(fails(unavailable(answer))), Notes(), ambiguous).make(1, HELLO)
        is_lost = answer == "unknown" and ambiguous == "fail"
        assert isinstance(caught.value, ModelCallLost) is is_lost
        assert caught.value.details["code"] == "connection"


def test_a_policy_is_one_of_two() -> None:
    with pytest.raises(UsageError, match=r"RetryPolicy\.ambiguous is 'ask'; it is retry or fail"):
        RetryPolicy(ambiguous="ask")  # type: ignore[arg-type]


async def test_what_was_said_meanwhile_is_heard_after_the_answer_that_was_under_way() -> None:
    journal = Notes(CallUnderWay(1, "resp_1"))
    journal.said = ["Quick!"]
    provider = Provider(answers, answers)
    calls = ToolCalls(Toolset(), RunContext(run_id="r", session_id=None, agent_name="a", attempt=2), journal)
    assert await Turns(provider, HELLO.messages, calls=calls).take() == "Hi"
    first, second = provider.asked
    assert (first.response_id, second.response_id) == ("resp_1", None)
    assert [message.content for message in second.messages] == ["Hello", "Hi", "Quick!"]


async def test_a_state_that_lacks_something_by_now_does_not_take_the_place_of_an_answer_under_way() -> None:
    journal = Notes(CallUnderWay(1, "resp_1"))
    await journal.begin_state([{"path": ["a"], "op": "default", "value": 1}])
    assert (journal.state, journal.begin()) == ({}, 1)
