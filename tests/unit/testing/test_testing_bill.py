"""What was paid, however a call ended and however often its answer was looked at."""

from typing import Any

import anyio
import openai
import pytest
from openai import AsyncOpenAI

from pgrun.testing import ModelServer, Usage, cut, disconnect, failed, hang, refusal, reply, server_error, truncated

USAGE = Usage(100, 60, cached_tokens=64, reasoning_tokens=10)


async def ask(client: AsyncOpenAI, **more: Any) -> Any:
    return await client.responses.create(model="gpt-5-mini", input="Hello", **more)


async def read(client: AsyncOpenAI, **more: Any) -> None:
    async for _ in await ask(client, stream=True, **more):
        pass


async def test_each_answer_is_paid_once_however_often_it_is_looked_at(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(reply("x", usage=USAGE), reply("y", usage=USAGE))
    first = await ask(client)
    second = await ask(client, background=True)
    for _ in range(3):
        await client.responses.retrieve(first.id)
        while (await client.responses.retrieve(second.id)).status != "completed":
            pass

    assert server.paid == 2
    assert server.paid_tokens == Usage(200, 120, cached_tokens=128, reasoning_tokens=20)
    assert server.paid_by_response == {first.id: USAGE, second.id: USAGE}
    assert [call.response_id for call in server.calls] == [first.id, second.id]


async def test_an_answer_is_paid_when_the_client_has_it(server: ModelServer, client: AsyncOpenAI) -> None:
    async for event in await ask(client, stream=True):
        if event.type == "response.completed":
            assert server.paid == 1


async def test_bad_endings_are_paid_like_good_ones(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(refusal(), truncated("{"))
    usages = [(await ask(client)).usage for _ in range(2)]

    assert server.paid == 2
    assert server.paid_tokens.output_tokens == sum(usage.output_tokens for usage in usages)


async def test_what_no_model_worked_on_is_not_paid(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(server_error(), disconnect(), failed())
    for _ in range(2):
        with pytest.raises(openai.APIError):
            await ask(client)
    assert (await ask(client)).status == "failed"

    assert (server.paid, server.paid_tokens) == (0, Usage(0, 0))


async def test_a_hanging_call_is_paid_only_if_it_goes_on(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(hang(), hang())
    for number in (1, 2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, client)
            await server.await_for_calls(number)
            if number == 1:
                tasks.cancel_scope.cancel()
            else:
                server.release()
        await server.await_for_calls(1, outcome="aborted")
        assert server.paid == number - 1


@pytest.mark.parametrize(("stream", "tokens"), [(False, 1), (True, 1)])
async def test_a_client_that_leaves_while_the_model_thinks_has_to_pay(
    server: ModelServer, client: AsyncOpenAI, stream: bool, tokens: int
) -> None:
    server.script(reply("x", delay=60, usage=USAGE))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read if stream else ask, client)
        await server.await_for_calls(1)
        tasks.cancel_scope.cancel()
    await server.await_for_calls(1, outcome="aborted")

    assert server.paid_tokens == Usage(100, tokens, cached_tokens=64, reasoning_tokens=1)


@pytest.mark.parametrize(("after", "tokens"), [(0, 1), (2, 1), (4, 1), (5, 10), (7, 30), (9, 50), (None, 60)])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_foreground_call_whose_connection_breaks_is_paid_as_far_as_it_came(
    server: ModelServer, client: AsyncOpenAI, after: int | None, tokens: int, stream: bool
) -> None:
    server.script(cut(reply("abcdef", deltas=6, usage=USAGE), after_events=after))
    with pytest.raises(openai.APIConnectionError):
        await (read(client) if stream else ask(client))

    assert (server.paid, server.paid_tokens.input_tokens, server.paid_tokens.output_tokens) == (1, 100, tokens)


async def test_a_background_call_whose_connection_breaks_is_paid_in_full(
    server: ModelServer, client: AsyncOpenAI
) -> None:
    server.always(cut(reply("abcdef", usage=USAGE), after_events=1))
    for stream in (True, False):
        with pytest.raises(openai.APIConnectionError):
            await (read(client, background=True) if stream else ask(client, background=True))

    for response_id in server.responses:
        while (await client.responses.retrieve(response_id)).status != "completed":
            pass
    assert server.paid_tokens.output_tokens == 120


async def test_a_cancelled_response_is_paid_as_far_as_it_came(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(reply("ab", deltas=2, interval=60, usage=USAGE))
    async for event in await ask(client, background=True, stream=True):
        if event.type == "response.output_text.delta":
            await client.responses.cancel(server.calls[0].response_id or "")

    assert (server.paid, server.paid_tokens.output_tokens) == (1, 30)
    assert [body["usage"] for body in server.responses.values()] == [None]


async def test_a_server_that_counts_what_is_cancelled_says_so() -> None:
    with ModelServer(counts_cancelled=True) as server:
        server.script(reply("ab", delay=60, usage=USAGE), hang())
        async with AsyncOpenAI(base_url=server.base_url, api_key="key") as client:
            begun, hanging = [await ask(client, background=True) for _ in range(2)]
            used = (await client.responses.cancel(begun.id)).usage
            assert used is not None
            assert used.total_tokens == 101
            assert (await client.responses.cancel(hanging.id)).usage is None


async def test_a_hanging_response_that_is_cancelled_costs_nothing(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(hang())
    created = await ask(client, background=True)
    await client.responses.cancel(created.id)

    assert server.paid == 0
