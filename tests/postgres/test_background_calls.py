"""Stored runs whose provider works in the background: how they end, what is asked again, and what it adds up to."""

import pytest
from support.answering import SOON, USED, City, agent_at, assert_bill_agrees, until_noted
from support.database import Conn
from support.rows import row_of
from support.tables import one

from pgrun import Agent, OpenAIChat, PostgresDb, RunFailed, Worker, tool
from pgrun.testing import (
    ModelServer,
    cut,
    failed,
    filtered,
    hang,
    invalid_json,
    rate_limited,
    refusal,
    reply,
    server_error,
    tool_call,
    truncated,
)
from pgrun.testing.answers import Answer


async def test_a_run_has_its_id_in_its_row_while_it_is_asked_and_not_after(
    db: PostgresDb, conn: Conn, provider: ModelServer
) -> None:
    provider.script(hang())
    async with Worker(db):
        run = await agent_at(provider, db).arun("Hello", background=True)
        response_id = await until_noted(conn, run.run_id)
        assert row_of(conn, run.run_id)["call"] == {"step": 1, "response_id": response_id}
        provider.release()
        assert await run.aresult(timeout=10) == "A made-up answer to: Hello"
    assert row_of(conn, run.run_id)["call"] is None
    assert_bill_agrees(conn, provider)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal("No."), "ModelRefused"),
        (truncated("Hi"), "OutputTruncated"),
        (filtered("Hi"), "ContentFiltered"),
        (failed("invalid_prompt"), "ModelRejected"),
    ],
)
async def test_an_answer_that_did_not_end_well_is_final_and_leaves_nothing(
    db: PostgresDb, conn: Conn, provider: ModelServer, answer: Answer, kind: str
) -> None:
    provider.script(answer)
    async with Worker(db):
        run = await agent_at(provider, db).arun("Hello", background=True)
        with pytest.raises(RunFailed) as caught:
            await run.aresult(timeout=10)
    assert caught.value.error_type == kind
    assert row_of(conn, run.run_id)["call"] is None
    assert (len(provider.calls), one(conn, "select count(*) from pgrun.left_calls")) == (1, 0)


@pytest.mark.parametrize(
    "fault", [failed("server_error"), failed("rate_limit_exceeded"), server_error(), rate_limited(0.01)]
)
async def test_what_is_over_is_asked_anew_and_what_is_cut_is_not(
    db: PostgresDb, conn: Conn, provider: ModelServer, fault: Answer
) -> None:
    provider.script(fault, cut(reply("Hi", usage=USED), 5), cut(reply("Hi", usage=USED), clean=True))
    async with Worker(db):
        for attempt in (2, 1):
            run = await agent_at(provider, db).arun("Hello", background=True)
            assert await run.aresult(timeout=10) == "Hi"
            assert row_of(conn, run.run_id)["attempt"] == attempt
    assert (len(provider.calls), provider.paid) == (3, 2)
    assert_bill_agrees(conn, provider)


async def test_an_answer_that_takes_too_long_is_stopped_and_asked_anew(
    db: PostgresDb, conn: Conn, provider: ModelServer
) -> None:
    provider.script(hang(), "Hi")
    async with Worker(db):
        run = await agent_at(provider, db, timeout=0.3).arun("Hello", background=True)
        assert await run.aresult(timeout=10) == "Hi"
    assert [body["status"] for body in provider.responses.values()] == ["cancelled", "completed"]


async def test_repairs_and_retries_and_cuts_add_up_to_the_bill(
    db: PostgresDb, conn: Conn, provider: ModelServer
) -> None:
    @tool(repeat="pure")
    async def look(city: str) -> str:
        """Looks at a city."""
        return "sun"

    provider.script(
        cut(reply(calls=[tool_call("look", {"city": "Rome"})], usage=USED), 6),
        failed("server_error"),
        cut(invalid_json(), clean=True),
        rate_limited(0.01),
        cut(reply({"name": "Rome"}, usage=USED)),
    )
    async with Worker(db):
        run = await agent_at(provider, db, tools=[look], output_schema=City).arun("Rome?", background=True)
        assert await run.aresult(timeout=10) == City(name="Rome")
    assert [call.status for call in provider.calls].count(429) == 1
    assert (len(provider.calls), provider.paid) == (5, 3)
    assert_bill_agrees(conn, provider)


async def test_what_the_provider_says_of_its_limits_is_in_the_journal(
    db: PostgresDb, conn: Conn, provider: ModelServer
) -> None:
    @tool(repeat="pure")
    async def look() -> str:
        """Looks."""
        return "sun"

    provider.script(reply(calls=[tool_call("look")]), "Sun.")
    async with Worker(db):
        run = await agent_at(provider, db, tools=[look]).arun("Rome?", background=True)
        await run.aresult(timeout=10)
    data = one(conn, "select data from pgrun.steps where kind = 'model_call'")
    assert data["rate_limits"]["remaining_requests"] >= 0
    assert data["response_id"] in provider.responses


async def test_a_model_that_knows_no_background_mode_costs_no_note(
    db: PostgresDb, conn: Conn, provider: ModelServer
) -> None:
    agent = Agent(name="Chat", model=OpenAIChat("llama", base_url=provider.base_url, api_key="test"), db=db, retry=SOON)
    provider.script(hang())
    async with Worker(db):
        run = await agent.arun("Hello", background=True)
        await provider.await_for_calls(1)
        assert row_of(conn, run.run_id)["call"] is None
        await agent.acancel_run(run.run_id)
        await provider.await_for_calls(1, outcome="aborted")
