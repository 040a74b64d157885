"""Agents whose history is given by the provider's id of the last answer: what is sent, and what becomes of it when it is gone."""

from typing import Any

import pytest
from pydantic import BaseModel
from support.database import Conn
from support.models import ScriptedModel
from support.rows import row_of
from support.until import until

from pgrun import (
    Agent,
    OpenAIChat,
    OpenAIResponses,
    PostgresDb,
    RetryPolicy,
    RunFailed,
    RunOutput,
    UsageError,
    Worker,
    tool,
)
from pgrun._agents_here import _registry
from pgrun.run.definition import AgentDefinition
from pgrun.testing import ModelServer, hang, invalid_json, reply, tool_call
from pgrun.testing.answers import HttpError

REMEMBERS: dict[str, Any] = {"add_history_to_context": True, "use_previous_response_id": True}


class City(BaseModel):
    name: str


def agent_at(provider: ModelServer, db: PostgresDb, **options: Any) -> Agent[Any]:
    model = OpenAIResponses("gpt-5-mini", base_url=provider.base_url, api_key="test")
    retry = RetryPolicy(base_delay=0.02)
    return Agent(
        **{"name": "Ada", "model": model, "instructions": "Be brief.", "db": db, "retry": retry, **REMEMBERS, **options}
    )


async def say(agent: Agent[Any], text: str, **options: Any) -> Any:
    return await (await agent.arun(text, session_id="s", background=True, **options)).aresult(timeout=10)


def sent(provider: ModelServer, number: int) -> tuple[str | None, str | None, list[str]]:
    """Of a call, counted from 0: from which call's answer it goes on, its instructions, and what else is said in it."""
    body = provider.calls[number].body
    said = [item.get("content") or item.get("output") or f"calls {item['name']}" for item in body["input"]]
    ids = {call.response_id: f"call {place}" for place, call in enumerate(provider.calls)}
    previous = body.get("previous_response_id")
    return (
        previous and ids[previous],
        body.get("instructions"),
        [each if isinstance(each, str) else "…" for each in said],
    )


async def test_a_run_goes_on_from_the_last_answer_and_only_what_is_new_is_said(
    db: PostgresDb, provider: ModelServer
) -> None:
    provider.script("Hello Ada.", "Ada.", "Still Ada.")
    agent = agent_at(provider, db)
    async with Worker(db):
        for text in ("I am Ada.", "Who am I?", "And now?"):
            await say(agent, text)
    assert sent(provider, 0) == (None, "Be brief.", ["I am Ada."])
    assert sent(provider, 1) == ("call 0", "Be brief.", ["Who am I?"])
    assert sent(provider, 2) == ("call 1", "Be brief.", ["And now?"])


async def test_turns_of_a_run_go_on_from_the_run_before(db: PostgresDb, provider: ModelServer) -> None:
    @tool(repeat="pure")
    def look(city: str) -> str:
        """Looks at a city."""
        return "sun"

    agent = agent_at(provider, db, tools=[look], output_schema=City)
    provider.script(
        *(
            {"name": "Oslo"},
            reply(calls=[tool_call("look", {"city": "Rome"})]),
            invalid_json("Rome!"),
            {"name": "Rome"},
        ),
        {"name": "Bonn"},
    )
    async with Worker(db):
        for text in ("Oslo?", "Rome?", "Bonn?"):
            await say(agent, text)
    assert [sent(provider, number)[0] for number in range(5)] == [None, *["call 0"] * 3, "call 3"]
    assert sent(provider, 2)[2] == ["Rome?", "calls look", "sun"]
    assert sent(provider, 3)[2][:4] == ["Rome?", "calls look", "sun", "Rome!"]


@pytest.mark.parametrize(
    "gone",
    [
        None,
        HttpError(404, "Not found."),
        HttpError(400, "Your input exceeds the context window of this model.", code="context_length_exceeded"),
        HttpError(400, "Previous response cannot be used for this organization due to Zero Data Retention."),
        HttpError(400, "Unsupported parameter.", param="previous_response_id", code="unsupported_parameter"),
    ],
)
async def test_what_the_provider_knows_no_longer_is_told_anew(
    db: PostgresDb, conn: Conn, provider: ModelServer, gone: HttpError | None
) -> None:
    @tool(repeat="pure")
    def look() -> str:
        """Looks."""
        return "sun"

    provider.script("Hello Ada.", *([gone] if gone else []), reply(calls=[tool_call("look")]), "Ada.", "Still Ada.")
    agent = agent_at(provider, db, tools=[look])
    async with Worker(db):
        await say(agent, "I am Ada.")
        if gone is None:
            provider.forget(next(iter(provider.responses)))
        run: RunOutput[Any] = await agent.arun("Who am I?", session_id="s", background=True)
        assert await run.aresult(timeout=10) == "Ada."
        await say(agent, "And now?")
    assert [call.status for call in provider.calls] == [200, gone.status if gone else 400, 200, 200, 200]
    assert row_of(conn, run.run_id)["attempt"] == 1
    told = ["I am Ada.", "Hello Ada.", "Who am I?"]
    assert sent(provider, 2) == (None, "Be brief.", told)
    assert sent(provider, 3) == (None, "Be brief.", [*told, "calls look", "sun"]), "and it is not asked for again"
    assert sent(provider, 4) == ("call 3", "Be brief.", ["And now?"])


async def test_another_fault_of_the_request_is_no_reason_to_ask_again(db: PostgresDb, provider: ModelServer) -> None:
    provider.script("Hello Ada.", HttpError(400, "Too long.", param="input"))
    agent = agent_at(provider, db)
    async with Worker(db):
        await say(agent, "I am Ada.")
        with pytest.raises(RunFailed, match="Too long"):
            await say(agent, "Who am I?")
    assert len(provider.calls) == 2


async def test_another_worker_goes_on_in_the_same_way(db: PostgresDb, conn: Conn, provider: ModelServer) -> None:
    provider.script("Hello Ada.", hang())
    agent = agent_at(provider, db)
    async with Worker(db):
        await say(agent, "I am Ada.")
        run = await agent.arun("Who am I?", session_id="s", background=True)
        await until(lambda: row_of(conn, run.run_id)["call"])
    _registry.clear()  # as in a daemon, which has never heard of the agent
    provider.release()
    async with Worker(db):
        await run.aresult(timeout=10)
        await say(agent, "And now?")
    assert sent(provider, 2) == ("call 1", "Be brief.", ["And now?"])


async def test_what_the_provider_has_not_answered_itself_is_told(db: PostgresDb, provider: ModelServer) -> None:
    def shout(run_output: RunOutput[Any]) -> None:
        run_output.content = str(run_output.content).upper()

    agent = agent_at(provider, db, num_history_runs=9)
    shouting = agent_at(provider, db, name="Shouting", post_hooks=[shout])
    other = Agent(name="Other", model=OpenAIChat("x", base_url=provider.base_url, api_key="test"), db=db)
    provider.script("first", "second", "third", "fourth")
    async with Worker(db):
        await say(agent, "1")
        await say(shouting, "2")
        await say(other, "3")
    await agent.arun("4", session_id="s", background=True)
    interrupts = await agent.arun("5", session_id="s", multitask="interrupt", background=True)
    async with Worker(db):
        assert await interrupts.aresult(timeout=10) == "fourth"
    assert sent(provider, 3) == ("call 0", "Be brief.", ["2", "SECOND", "3", "third", "4", "5"])


def test_it_is_refused_where_it_cannot_be() -> None:
    db = PostgresDb("postgresql://localhost/nothing")
    for model, says in (
        (
            OpenAIChat("x", base_url="http://localhost/v1"),
            "the answers of OpenAIChat.* have no id .* use OpenAIResponses",
        ),
        (ScriptedModel(), "have no id"),
        (OpenAIResponses("gpt-5-mini", store=False), "with store=False the provider keeps no answer"),
    ):
        with pytest.raises(UsageError, match=says):
            Agent(model=model, db=db, **REMEMBERS)
    with pytest.raises(UsageError, match="that needs add_history_to_context=True"):
        Agent(model="gpt-5-mini", db=db, use_previous_response_id=True)
    with pytest.raises(UsageError, match="use_previous_response_id: True or False"):
        AgentDefinition.from_json({"model": {"provider": "openai.chat", "id": "x"}, "use_previous_response_id": "yes"})
