"""OpenAIChat over HTTP: whole runs and failures, with the real client and a server that speaks Chat Completions."""

import time
from typing import Any

import pytest
from pydantic import BaseModel

from pgrun import (
    Agent,
    ContentFiltered,
    ModelRefused,
    ModelRejected,
    ModelUnavailable,
    OpenAIChat,
    OutputTruncated,
    QuotaExceeded,
    RunFailed,
    tool,
)
from pgrun.errors import AttemptError
from pgrun.models.base import Message, ModelRequest, load_model
from pgrun.testing import (
    ModelServer,
    Usage,
    disconnect,
    filtered,
    hang,
    http_error,
    invalid_json,
    quota_exceeded,
    rate_limited,
    refusal,
    reply,
    server_error,
    tool_call,
    truncated,
    unauthorized,
)
from pgrun.testing.answers import Answer

HELLO = ModelRequest((Message("user", "Hello"),))
ROME = {"name": "Rome", "people": 3}


class City(BaseModel):
    name: str
    people: int


def model_at(server: ModelServer, **options: Any) -> OpenAIChat:
    return OpenAIChat(**{"id": "llama", "base_url": server.base_url, "api_key": "own-key", **options})


async def test_an_answer_with_what_it_cost(models: ModelServer) -> None:
    models.script(reply("Hi there", usage=Usage(100, 50, cached_tokens=64, reasoning_tokens=20)))
    response = await model_at(models, organization="org-1").call(HELLO)
    assert (response.text, response.ending, response.model) == ("Hi there", "completed", "llama")
    used = response.usage
    assert (used.total_tokens, used.cached_tokens, used.reasoning_tokens) == (150, 64, 20)
    (call,) = models.calls
    assert call.body == {"model": "llama", "messages": [{"role": "user", "content": "Hello"}]}
    assert (call.headers["authorization"], call.headers["openai-organization"]) == ("Bearer own-key", "org-1")


@pytest.mark.parametrize("form", ["json_schema", "json_object", "prompt"])
async def test_a_typed_answer_is_repaired_however_the_server_is_told(models: ModelServer, form: str) -> None:
    models.script(invalid_json(), reply(f"```json\n{City(**ROME).model_dump_json()}\n```"))
    agent = Agent(model=model_at(models, structured_output=form), description="Be exact.", output_schema=City)
    run = await agent.arun("Rome?")
    assert run.content == City(name="Rome", people=3)
    assert [message["role"] for message in models.calls[1].body["messages"]] == ["system", "user", "assistant", "user"]


async def test_a_schema_that_is_not_scripted_is_followed(models: ModelServer) -> None:
    run = await Agent(model=model_at(models), output_schema=list[City]).arun("Rome and Oslo?")
    assert run.content
    assert all(isinstance(city, City) for city in run.content)


async def test_a_conversation_with_calls(models: ModelServer) -> None:
    @tool
    async def weather(city: str) -> str:
        """Tells the weather."""
        return f"{city}: sun"

    calls = [tool_call("weather", {"city": "Rome"}, call_id="a"), tool_call("weather", '{"ci', call_id="b")]
    models.script(reply("I look.", calls=calls), "Sun.")
    agent = Agent(model=model_at(models, parallel_tool_calls=True), tools=[weather], tool_choice="required")
    run = await agent.arun("Rome?")
    assert run.content == "Sun."
    assert [(each.call_id, each.result) for each in run.tools] == [("a", "Rome: sun"), ("b", None)]
    first, second = [call.body for call in models.calls]
    assert (first["tool_choice"], second.get("tool_choice")) == ("required", None)
    user, asked, good, bad = second["messages"]
    assert (user["role"], asked["content"]) == ("user", "I look.")
    assert [call["function"]["arguments"] for call in asked["tool_calls"]] == [
        '{"city": "Rome"}',
        '{"invalid": "{\\"ci"}',
    ]
    assert good == {"role": "tool", "tool_call_id": "a", "content": "Rome: sun"}
    assert bad["content"].startswith("Invalid arguments")


@pytest.mark.parametrize(
    ("answer", "error"),
    [(refusal("No."), ModelRefused), (truncated('{"na'), OutputTruncated), (filtered("It"), ContentFiltered)],
)
async def test_an_answer_that_did_not_end_well_says_so(
    models: ModelServer, answer: Answer, error: type[AttemptError]
) -> None:
    models.script(answer)
    with pytest.raises(RunFailed) as caught:
        await (await Agent(model=model_at(models), output_schema=City).arun("Rome?")).aresult()
    assert type(caught.value.__cause__) is error


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (rate_limited(), ModelUnavailable),
        (server_error(503), ModelUnavailable),
        (disconnect(), ModelUnavailable),
        (quota_exceeded(), QuotaExceeded),
        (unauthorized(), QuotaExceeded),
        (http_error(400), ModelRejected),
        (http_error(404, code="model_not_found"), ModelRejected),
    ],
)
async def test_a_failure_says_whether_trying_again_can_help(
    models: ModelServer, answer: Answer, error: type[AttemptError]
) -> None:
    models.script(answer)
    with pytest.raises(AttemptError) as caught:
        await model_at(models).call(HELLO)
    assert type(caught.value) is error
    assert len(models.calls) == 1, "the queue retries, the SDK does not"


async def test_the_provider_says_when_to_come_back(models: ModelServer) -> None:
    models.script(rate_limited(retry_after=7))
    with pytest.raises(ModelUnavailable) as caught:
        await model_at(models).call(HELLO)
    assert caught.value.retry_after == 7


async def test_a_call_ends_when_its_time_is_up(models: ModelServer) -> None:
    models.script(hang())
    started = time.monotonic()
    with pytest.raises(ModelUnavailable, match=r"within 0\.1 s"):
        await model_at(models, timeout=0.1).call(HELLO)
    assert time.monotonic() - started < 5
    await models.await_for_calls(1, outcome="aborted")


async def test_a_server_that_only_the_database_names_never_gets_the_key(
    models: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "own-key")
    await load_model({"provider": "openai.chat", "id": "llama", "base_url": models.base_url}).call(HELLO)
    assert models.calls[0].headers["authorization"] == "Bearer none"
