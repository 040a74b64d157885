"""Responses that go on without their client: retrieved, streamed again, cancelled, deleted."""

import time
from typing import Any

import anyio
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response

from pgrun.errors import UsageError
from pgrun.testing import (
    ModelServer,
    cut,
    disconnect,
    failed,
    hang,
    rate_limited,
    reply,
    server_error,
    truncated,
)
from pgrun.testing.responses import BackgroundMode


async def submit(client: AsyncOpenAI, **more: Any) -> Response:
    response: Response = await client.responses.create(model="gpt-5-mini", input="Hello", background=True, **more)
    Response.model_validate(response.model_dump(exclude_unset=True))
    return response


async def until_ended(client: AsyncOpenAI, response_id: str) -> Response:
    with anyio.fail_after(5):
        while (response := await client.responses.retrieve(response_id)).status in ("queued", "in_progress"):
            pass
    return response


async def begin_stream(client: AsyncOpenAI, count: int) -> list[Any]:
    """The first events of a background stream, which is then left."""
    stream = await client.responses.create(model="m", input="x", background=True, stream=True)
    events = [await anext(stream._iterator) for _ in range(count)]
    await stream.close()
    return events


async def stream_again(client: AsyncOpenAI, response_id: str, after: int | None = None) -> list[Any]:
    more: dict[str, Any] = {} if after is None else {"starting_after": after}
    return [event async for event in await client.responses.retrieve(response_id, stream=True, **more)]


async def test_create_returns_at_once_and_the_response_goes_on_by_itself(
    server: ModelServer, client: AsyncOpenAI
) -> None:
    server.script(hang())
    created = await submit(client)
    assert (created.status, created.background, created.output, created.usage) == ("queued", True, [], None)
    assert (await client.responses.retrieve(created.id)).status == "in_progress"

    server.release()
    ended = await until_ended(client, created.id)
    assert (ended.id, ended.status, ended.output_text) == (created.id, "completed", "A made-up answer to: Hello")
    assert ended.usage
    assert len(server.calls) == 1
    assert {(each.method, each.path, each.status) for each in server.lookups} == {
        ("GET", f"/v1/responses/{created.id}", 200)
    }


@pytest.mark.parametrize(("answer", "status"), [(failed(), "failed"), (truncated("{"), "incomplete")])
async def test_endings(server: ModelServer, client: AsyncOpenAI, answer: Any, status: str) -> None:
    server.script(answer)

    assert (await until_ended(client, (await submit(client)).id)).status == status


async def test_an_unknown_response_is_not_found(client: AsyncOpenAI) -> None:
    unstored = await client.responses.create(model="m", input="x", store=False)
    for response_id in ("resp_0", unstored.id):
        for look in (client.responses.retrieve, client.responses.cancel, client.responses.delete):
            with pytest.raises(openai.NotFoundError, match=f"Response with id '{response_id}' not found."):
                await look(response_id)


async def test_lookups_can_fail(server: ModelServer, client: AsyncOpenAI) -> None:
    created = await submit(client)
    server.script_lookups(server_error(503), disconnect(), rate_limited(2))
    for error in (openai.InternalServerError, openai.APIConnectionError, openai.RateLimitError):
        with pytest.raises(error):
            await client.responses.retrieve(created.id)

    assert (await until_ended(client, created.id)).status == "completed"
    assert [each.status for each in server.lookups[:3]] == [503, None, 429]
    with pytest.raises(UsageError, match="a lookup can fail"):
        server.script_lookups(reply("x"))  # type: ignore[arg-type]


async def test_lookups_need_a_key(server: ModelServer, client: AsyncOpenAI) -> None:
    created = await submit(client)

    with pytest.raises(openai.AuthenticationError):
        await client.responses.retrieve(created.id, extra_headers={"Authorization": "Basic abc"})


async def test_a_foreground_response_is_stored_but_cannot_be_cancelled_or_streamed(client: AsyncOpenAI) -> None:
    created = await client.responses.create(model="m", input="x")

    assert (await client.responses.retrieve(created.id)).output_text == created.output_text
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        await client.responses.cancel(created.id)
    with pytest.raises(openai.BadRequestError, match="not created with stream=true"):
        await stream_again(client, created.id)


async def test_cancelling_twice_is_as_good_as_once(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(reply("never", delay=60))
    created = await submit(client)
    for _ in range(2):
        cancelled = await client.responses.cancel(created.id)
        assert (cancelled.id, cancelled.status, cancelled.output) == (created.id, "cancelled", [])

    assert (await client.responses.retrieve(created.id)).status == "cancelled"


async def test_cancelling_what_has_ended_returns_it_unchanged(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script("done")
    ended = await until_ended(client, (await submit(client)).id)

    assert await client.responses.cancel(ended.id) == ended


async def test_a_deleted_response_is_gone(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(hang())
    created = await submit(client)
    await client.responses.delete(created.id)

    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(created.id)
    assert server.responses == {}


async def test_a_stream_goes_on_after_its_client_left_and_gives_the_rest_later(
    server: ModelServer, client: AsyncOpenAI
) -> None:
    server.script(reply("abcdef", deltas=6, interval=0.02))
    first = await begin_stream(client, 5)
    assert [event.type for event in first[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert [event.response.status for event in first[:3]] == ["queued", "queued", "in_progress"]
    response_id = first[0].response.id

    rest = await stream_again(client, response_id, after=4)  # begins while the model still works
    assert [event.sequence_number for event in first + rest] == list(range(len(first + rest)))
    assert "".join(event.delta for event in rest if event.type == "response.output_text.delta") == "abcdef"
    assert rest[-1].response.output_text == "abcdef"

    again = await stream_again(client, response_id)  # and now that it has ended
    assert [event.model_dump() for event in again] == [event.model_dump() for event in first + rest]
    assert await stream_again(client, response_id, after=again[-1].sequence_number) == []
    assert server.lookups[0].query == {"stream": "true", "starting_after": "4"}


async def test_many_can_follow_one_response(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(hang())
    (created,) = await begin_stream(client, 1)
    found: list[list[Any]] = []

    async def follow(after: int) -> None:
        found.append(await stream_again(client, created.response.id, after))

    async with anyio.create_task_group() as tasks:
        for after in range(5):
            tasks.start_soon(follow, after)
        await server.await_for_lookups(5)
        server.release()

    assert {events[-1].type for events in found} == {"response.completed"}
    assert sorted(events[0].sequence_number for events in found) == [1, 2, 3, 4, 5]


async def test_a_cut_stream_can_be_picked_up_without_a_gap(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(cut(reply("abcdef", deltas=6), after_events=7))
    stream = await client.responses.create(model="m", input="x", background=True, stream=True)
    first: list[Any] = [await anext(stream._iterator) for _ in range(7)]
    with pytest.raises(openai.APIConnectionError):
        await anext(stream._iterator)
    rest = await stream_again(client, first[0].response.id, after=first[-1].sequence_number)

    assert [event.sequence_number for event in first + rest] == list(range(15))
    assert (server.calls[0].outcome, rest[-1].type) == ("dropped", "response.completed")


async def test_a_cut_create_leaves_a_response_that_nobody_knows(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(cut("lost"))
    with pytest.raises(openai.APIConnectionError):
        await submit(client)

    (response_id,) = server.responses
    assert server.calls[0].response_id == response_id
    assert (await until_ended(client, response_id)).output_text == "lost"


async def test_the_stream_of_a_cancelled_response_ends_without_a_last_event(
    server: ModelServer, client: AsyncOpenAI
) -> None:
    server.script(hang())
    events = []
    async for event in await client.responses.create(model="m", input="x", background=True, stream=True):
        events.append(event.type)
        if event.type == "response.in_progress":
            await client.responses.cancel(server.calls[0].response_id or "")

    assert events[-1] == "response.in_progress"


async def test_a_stream_can_be_picked_up_for_a_while_only(client: AsyncOpenAI, server: ModelServer) -> None:
    with ModelServer(replay_window=0) as impatient:
        client = client.with_options(base_url=impatient.base_url)
        (created,) = await begin_stream(client, 1)
        with pytest.raises(openai.BadRequestError, match="can no longer be streamed because it is more than 0 minutes"):
            await stream_again(client, created.response.id)
        assert (await until_ended(client, created.response.id)).status == "completed"


async def test_starting_after_is_a_number(client: AsyncOpenAI) -> None:
    (created,) = await begin_stream(client, 1)
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.retrieve(created.response.id, extra_query={"stream": "true", "starting_after": "x"})
    assert caught.value.param == "starting_after"


async def test_background_needs_the_response_to_be_stored(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await submit(client, store=False)
    assert caught.value.param == "store"


@pytest.mark.parametrize("mode", ["rejected", "ignored"])
async def test_endpoints_without_background_mode(client: AsyncOpenAI, mode: BackgroundMode) -> None:
    with ModelServer(background=mode) as other:
        client = client.with_options(base_url=other.base_url)
        if mode == "rejected":
            with pytest.raises(openai.BadRequestError) as caught:
                await submit(client)
            assert (caught.value.param, caught.value.code) == ("background", "unsupported_parameter")
        else:
            response = await submit(client, store=False)
            assert (response.status, response.background) == ("completed", False)


async def test_what_a_stopped_server_left_unfinished_goes_on_when_it_is_back(
    server: ModelServer, client: AsyncOpenAI
) -> None:
    server.script(reply("abcdef", deltas=6, interval=0.05))
    before = await begin_stream(client, 6)
    server.stop()
    with pytest.raises(openai.APIConnectionError):
        await client.responses.retrieve(before[0].response.id)
    server.start()

    rest = await stream_again(client, before[0].response.id, after=5)
    assert [event.sequence_number for event in before + rest] == list(range(15))
    assert rest[-1].response.output_text == "abcdef"


async def test_many_responses_are_worked_on_at_the_same_time(server: ModelServer, client: AsyncOpenAI) -> None:
    server.delay = 0.3
    started = time.monotonic()
    created = [await submit(client) for _ in range(50)]
    for each in created:
        assert (await until_ended(client, each.id)).status == "completed"

    assert time.monotonic() - started < 5
    assert len({each.id for each in created}) == server.paid == 50


async def test_a_response_can_hang_without_a_word(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(hang(silent=True))
    events: list[Any] = []

    async def read() -> None:
        events.extend([event async for event in await client.responses.create(**_STREAMED)])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await server.await_for_calls(1)
        assert [body["status"] for body in server.responses.values()] != ["completed"]
        assert (events, server.paid) == ([], 0)
        server.release()
    assert events[-1].type == "response.completed"


async def test_a_response_can_stay_queued(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(hang(queued=True))
    events = await begin_stream(client, 2)
    assert [event.type for event in events] == ["response.created", "response.queued"]
    response_id = events[0].response.id
    assert (await client.responses.retrieve(response_id)).status == "queued"
    server.release()
    assert (await until_ended(client, response_id)).status == "completed"


async def test_a_provider_forgets(server: ModelServer, client: AsyncOpenAI) -> None:
    ended = await until_ended(client, (await submit(client)).id)
    server.forget(ended.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(ended.id)
    with pytest.raises(UsageError, match="no response resp_0 is stored here"):
        server.forget("resp_0")


_STREAMED: dict[str, Any] = {"model": "m", "input": "x", "background": True, "stream": True}
