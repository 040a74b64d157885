"""Streams of the Responses API as the real client reads them, whole and cut."""

import time
from typing import Any

import anyio
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from pgrun.errors import UsageError
from pgrun.testing import (
    ModelServer,
    cut,
    failed,
    hang,
    rate_limited,
    refusal,
    reply,
    server_error,
    tool_call,
    truncated,
)
from pgrun.testing.stream import pieces

TOOL: Any = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {}}}
EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


async def events_of(client: AsyncOpenAI, into: list[Any] | None = None, **more: Any) -> list[Any]:
    events = [] if into is None else into
    async for event in await client.responses.create(model="gpt-5-mini", input="Hello", stream=True, **more):
        # The client parses leniently; this is the strict reading of the shape it declares.
        EVENT.validate_python(event.model_dump(exclude_unset=True))
        events.append(event)
    return events


def kinds(events: list[Any]) -> list[str]:
    return [event.type.removeprefix("response.") for event in events]


async def test_a_text_comes_in_deltas_between_the_providers_events(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(reply("Oslo, in Norway", deltas=3))
    events = await events_of(client)

    assert kinds(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 3,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event.sequence_number for event in events] == list(range(11))
    assert [event.delta for event in events[4:7]] == ["Oslo,", " in N", "orway"]
    assert events[7].text == "Oslo, in Norway"
    first, last = events[0].response, events[-1].response
    assert (first.id, first.status, first.output, first.usage) == (last.id, "in_progress", [], None)
    assert (last.status, last.output_text) == ("completed", "Oslo, in Norway")
    assert events[2].item.id == events[4].item_id == last.output[0].id
    assert server.calls[0].response_id == last.id


async def test_the_clients_own_helper_puts_it_together(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(reply("Look", calls=[tool_call("get_weather", {"city": "Oslo"})]))
    async with client.responses.stream(model="gpt-5-mini", input="Hello", tools=[TOOL]) as stream:
        final = await stream.get_final_response()

    assert final.output_text == "Look"
    assert final.output[1].type == "function_call"
    assert final.output[1].arguments == '{"city": "Oslo"}'


async def test_tool_calls_are_streamed(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(reply(calls=[tool_call("get_weather", '{"a":1}'), tool_call("get_weather")], deltas=2))
    events = await events_of(client, tools=[TOOL])

    one = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.delta"]
    assert kinds(events)[2:7] == [*one, "function_call_arguments.done", "output_item.done"]
    assert "".join(event.delta for event in events[3:5]) == events[5].arguments == '{"a":1}'
    assert events[2].item.arguments == ""
    assert [event.output_index for event in events[2:-1]] == [0] * 5 + [1] * 5


@pytest.mark.parametrize(
    ("answer", "shown", "last"),
    [
        (refusal("No."), ["refusal.delta", "refusal.delta", "refusal.delta", "refusal.done"], "completed"),
        (truncated("{"), ["output_text.delta", "output_text.done"], "incomplete"),
        (failed(), [], "failed"),
        (reply(""), ["output_text.done"], "completed"),
    ],
)
async def test_every_ending(server: ModelServer, client: AsyncOpenAI, answer: Any, shown: list[str], last: str) -> None:
    server.script(answer)
    found = kinds(await events_of(client))

    assert [kind for kind in found if kind.startswith(("refusal", "output_text"))] == shown
    assert found[-1] == last


def test_pieces_are_as_many_as_wanted_or_as_there_are_characters() -> None:
    assert pieces("abcdef", 3) == ["ab", "cd", "ef"]
    assert pieces("ab", 8) == ["a", "b"]
    assert pieces("", 8) == []
    assert pieces("abc", 1) == ["abc"]


async def test_the_first_event_comes_at_once_and_the_rest_at_the_models_pace(
    server: ModelServer, client: AsyncOpenAI
) -> None:
    server.script(reply("abc", delay=0.1, deltas=3, interval=0.05))
    started = time.monotonic()
    at: dict[str, float] = {}
    async for event in await client.responses.create(model="m", input="x", stream=True):
        at.setdefault(event.type, time.monotonic() - started)

    assert at["response.created"] < 0.1 <= at["response.output_text.delta"]
    assert at["response.completed"] >= 0.2


async def test_without_a_stream_an_answer_takes_as_long(server: ModelServer, client: AsyncOpenAI) -> None:
    server.interval = 0.05
    server.script(reply("abc", deltas=3), reply("abc", interval=0))
    for _ in range(2):
        await client.responses.create(model="m", input="x")

    slow, fast = ((call.answered_at or 0) - call.received_at for call in server.calls)
    assert slow >= 0.1 > fast


async def test_errors_come_before_any_event(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(rate_limited())

    with pytest.raises(openai.RateLimitError):
        await events_of(client)


async def test_a_stream_is_in_the_journal_as_answered_when_its_last_event_is_there(
    server: ModelServer, client: AsyncOpenAI
) -> None:
    async for event in await client.responses.create(model="m", input="x", stream=True):
        if event.type == "response.completed":
            assert (server.calls[0].outcome, server.calls[0].status) == ("answered", 200)


@pytest.mark.parametrize("count", [1, 4, 6])
async def test_a_stream_can_be_cut_after_some_events(server: ModelServer, client: AsyncOpenAI, count: int) -> None:
    server.script(cut(reply("abcdef", deltas=6, delay=0, interval=0), after_events=count))
    events: list[Any] = []

    with pytest.raises(openai.APIConnectionError):
        await events_of(client, events)
    assert len(events) == count
    assert (server.calls[0].outcome, server.calls[0].status) == ("dropped", None)


async def test_a_cut_before_the_first_event_leaves_no_status_line(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(cut("abc", after_events=0))

    with pytest.raises(openai.APIConnectionError):
        await client.responses.create(model="m", input="x", stream=True)


async def test_a_cut_after_all_the_work_leaves_out_the_last_event(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(cut("abc"))
    events: list[Any] = []

    with pytest.raises(openai.APIConnectionError):
        await events_of(client, events)
    assert kinds(events)[-1] == "output_item.done"


async def test_a_clean_cut_looks_like_an_end(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(cut("abc", clean=True))

    assert kinds(await events_of(client))[-1] == "output_item.done"
    assert server.calls[0].outcome == "dropped"


async def test_a_stream_can_break_with_an_error_event(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(cut("abc", after_events=3, error=server_error()))
    *before, last = await events_of(client)

    assert kinds(before) == ["created", "in_progress", "output_item.added"]
    assert (last.type, last.code, last.sequence_number) == ("error", "server_error", 3)
    assert (server.calls[0].outcome, server.paid) == ("dropped", 1)


async def test_a_cut_without_a_stream_gives_nothing(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(cut("abc"))

    with pytest.raises(openai.APIConnectionError):
        await client.responses.create(model="m", input="x")
    assert (server.calls[0].outcome, server.calls[0].status) == ("dropped", None)


def test_only_what_a_model_works_on_can_be_cut() -> None:
    with pytest.raises(UsageError, match="can be cut"):
        cut(rate_limited())


async def test_a_client_that_leaves_its_stream_is_noticed(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(hang())
    stream = await client.responses.create(model="m", input="x", stream=True)
    assert (await anext(aiter(stream))).type == "response.created"
    await stream.close()

    (call,) = await server.await_for_calls(1, outcome="aborted")
    assert server.responses[call.response_id or ""]["status"] == "cancelled"


async def test_a_hanging_stream_goes_on_when_it_is_released(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(hang())
    found: list[Any] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(events_of, client, found)
        await server.await_for_calls(1)
        while len(found) < 2:
            await anyio.lowlevel.checkpoint()
        assert kinds(found) == ["created", "in_progress"]
        server.release()

    assert kinds(found)[-1] == "completed"


@pytest.mark.parametrize("api", ["responses", "chat"])
async def test_servers_without_streams_reject_or_ignore_the_wish(client: AsyncOpenAI, api: str) -> None:
    async def ask(base_url: str) -> Any:
        asking = client.with_options(base_url=base_url).with_raw_response
        if api == "responses":
            return await asking.responses.create(model="m", input="x", stream=True)
        messages: Any = [{"role": "user", "content": "x"}]
        options: Any = {"include_usage": True}
        return await asking.chat.completions.create(model="m", messages=messages, stream=True, stream_options=options)

    with ModelServer(streams="ignored") as server:
        raw = await ask(server.base_url)
        assert raw.headers["content-type"] == "application/json"
        assert server.calls[0].body["stream"] is True
    with ModelServer(streams="rejected") as server, pytest.raises(openai.BadRequestError) as caught:
        await ask(server.base_url)
    assert caught.value.param == "stream"
