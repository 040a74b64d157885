"""The model server as a thing that runs: its journal, waiting and disconnecting clients, starting and stopping."""

import gc
import json
import sys
import threading
import time
from http.client import HTTPConnection

import anyio
import openai
import pytest
from anyio.abc import TaskGroup
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response

from pgrun.errors import UsageError
from pgrun.testing import ModelServer, cut, disconnect, hang, reply


async def ask(client: AsyncOpenAI, text: str = "Hello") -> Response:
    return await client.responses.create(model="gpt-5-mini", input=text)


async def start_hanging_call(server: ModelServer, client: AsyncOpenAI, tasks: TaskGroup) -> None:
    tasks.start_soon(ask, client)
    await server.await_for_calls(1)


async def test_an_answered_call_is_in_the_journal_as_soon_as_the_client_has_it(
    server: ModelServer, client: AsyncOpenAI
) -> None:
    before = time.monotonic()
    await client.responses.create(
        model="gpt-5-mini",
        input=[{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}],
    )
    (call,) = server.calls

    assert (call.number, call.model, call.text) == (1, "gpt-5-mini", "one")
    assert (call.outcome, call.status) == ("answered", 200)
    assert call.answered_at is not None
    assert before <= call.received_at <= call.answered_at <= time.monotonic()
    assert call.body["input"][1]["content"] == "two"
    assert call.headers["authorization"] == "Bearer test-key"
    assert "test-key" not in repr(call)


async def test_a_client_that_leaves_is_noticed(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(hang(), reply("late", delay=60))
    for number in (1, 2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, client)
            (*_, call) = await server.await_for_calls(number)
            assert (call.outcome, call.answered_at) == ("open", None)
            tasks.cancel_scope.cancel()
        cancelled_at = time.monotonic()
        (*_, call) = await server.await_for_calls(number, outcome="aborted")
        assert time.monotonic() - cancelled_at < 0.5  # usually below a millisecond
        assert (call.number, call.status, call.answered_at) == (number, None, None)


async def test_delays(server: ModelServer, client: AsyncOpenAI) -> None:
    server.delay = 60
    server.script(reply("at once", delay=0), reply("soon", delay=0.05))

    assert (await ask(client)).output_text == "at once"
    assert (await ask(client)).output_text == "soon"
    waited = [(call.answered_at or 0) - call.received_at for call in server.calls]
    assert waited[0] < 1
    assert 0.05 <= waited[1] < 1


async def test_release_lets_hanging_calls_go_on(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(hang())
    async with anyio.create_task_group() as tasks:
        await start_hanging_call(server, client, tasks)
        server.release()

    assert server.calls[0].outcome == "answered"


async def test_many_calls_wait_at_the_same_time(server: ModelServer, client: AsyncOpenAI) -> None:
    server.delay = 0.3
    started = time.monotonic()
    async with anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(ask, client, f"Question {number}")

    assert time.monotonic() - started < 10
    assert {call.text for call in server.calls} == {f"Question {number}" for number in range(200)}
    assert all((call.answered_at or 0) - call.received_at >= 0.3 for call in server.calls)


def test_a_blocking_test_can_wait_for_calls(server: ModelServer) -> None:
    server.script(hang())
    with OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0) as client:
        thread = threading.Thread(target=lambda: client.responses.create(model="m", input="x"))
        thread.start()
        assert server.wait_for_calls(1)[0].outcome == "open"
        server.release()
        thread.join()
        assert server.wait_for_calls(1, outcome="answered")[0].status == 200


async def test_waiting_for_calls_gives_up(server: ModelServer) -> None:
    with pytest.raises(TimeoutError, match="did not see 1 aborted calls within"):
        await server.await_for_calls(1, timeout=0.01, outcome="aborted")
    with pytest.raises(TimeoutError, match="did not see 2 calls"):
        server.wait_for_calls(2, timeout=0.01)
    with pytest.raises(TimeoutError, match="did not see 1 lookups"):
        server.wait_for_lookups(1, timeout=0.01)


async def test_stopping_cuts_hanging_calls(client: AsyncOpenAI, server: ModelServer) -> None:
    server.always(hang())

    async def is_cut() -> None:
        with pytest.raises(openai.APIConnectionError):
            await ask(client)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(is_cut)
        await server.await_for_calls(20)
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 0.5
    assert [call.outcome for call in server.calls] == ["dropped"] * 20


async def test_a_stopped_server_comes_back_at_its_address(client: AsyncOpenAI, server: ModelServer) -> None:
    address = server.base_url
    await ask(client)
    server.stop()
    with pytest.raises(openai.APIConnectionError):
        await ask(client)
    server.start()

    assert server.base_url == address
    assert (await ask(client)).status == "completed"
    assert len(server.calls) == 2


def test_no_thread_and_no_socket_is_left() -> None:
    before = set(threading.enumerate())
    for _ in range(3):
        with ModelServer() as server:
            server.start()  # a second time does nothing
        server.stop()
    gc.collect()  # a socket left open would warn here, and warnings are errors

    assert set(threading.enumerate()) - before == set()


def test_a_taken_port_is_told() -> None:
    with ModelServer() as server:
        port = int(server.base_url.split(":")[2].removesuffix("/v1"))
        with pytest.raises(OSError, match="in use"):
            ModelServer(port=port).start()


def test_nothing_is_logged_or_printed(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with ModelServer() as server, OpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client:
        created = client.responses.create(model="m", input="x")
        server.script(disconnect(), cut("x"), cut("x", after_events=2))
        for stream in (False, False, True):
            with pytest.raises(openai.APIConnectionError):
                list(client.responses.create(model="m", input="x", stream=stream))
        server.script_lookups(disconnect())
        with pytest.raises(openai.APIConnectionError):
            client.responses.retrieve(created.id)

    assert not [record for record in caplog.records if record.name.startswith(("uvicorn", "pgrun"))]
    assert capfd.readouterr() == ("", "")


def test_what_needs_a_running_server_says_so() -> None:
    server = ModelServer()
    assert repr(server) == "<ModelServer stopped, 0 calls>"
    for use in (lambda: server.base_url, lambda: server.environ, server.release, lambda: server.wait_for_calls(0)):
        with pytest.raises(UsageError, match="server"):
            use()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pgrun.testing.loopback", raising=False)
    monkeypatch.delitem(sys.modules, "pgrun.testing.application", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)

    with pytest.raises(UsageError, match=r"pip install \"pgrun\[testing\]\""):
        ModelServer().start()


def post(server: ModelServer, body: str, path: str = "/v1/responses", **headers: str) -> tuple[int, dict[str, object]]:
    connection = HTTPConnection(server.base_url.split("/")[2])
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())["error"]
    finally:
        connection.close()


def test_requests_the_provider_would_not_take(server: ModelServer) -> None:
    key = {"Authorization": "Bearer k"}

    assert post(server, '{"model": "m", "input": "x"}')[0] == 401
    assert post(server, '{"model": "m", "input": "x"}', Authorization="Bearer ")[0] == 401
    assert post(server, "no json", **key)[0] == 400
    assert post(server, "[]", **key)[0] == 400
    for body, param in [
        ('{"input": "x"}', "model"),
        ('{"model": "m"}', "input"),
        ('{"model": "m", "input": 7}', "input"),
        ('{"model": "m", "input": "x", "tools": 7}', "tools"),
        ('{"model": "m", "input": "x", "previous_response_id": {}}', "previous_response_id"),
        ('{"model": "m", "input": "x", "text": {"format": {"type": "xml"}}}', "text.format.type"),
        ('{"model": "m", "input": "x", "text": {"format": {"type": "json_schema"}}}', "text.format.name"),
        (
            '{"model": "m", "input": "x", "text": {"format": {"type": "json_schema", "name": "a b"}}}',
            "text.format.name",
        ),
        (
            '{"model": "m", "input": "x", "text": {"format": {"type": "json_schema", "name": "a"}}}',
            "text.format.schema",
        ),
    ]:
        status, error = post(server, body, **key)
        assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert [call.status for call in server.calls] == [401, 401] + [400] * 11


def test_paths_that_are_not_offered(server: ModelServer) -> None:
    status, error = post(server, "{}", "/v1/embeddings")

    assert status == 404
    assert error["message"] == "Invalid URL (POST /v1/embeddings): this test server does not answer that."
    assert server.calls == []
