"""What runs have used is in their rows, whatever became of their attempts and answers; and the rows add up to the bill."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anyio
import pytest
from support.answering import USED, City, agent_at, left_under_way, until_noted
from support.database import Conn
from support.hands import cancelled, hire, submit
from support.rows import row_of
from support.tables import one
from support.until import until

from pgrun import PostgresDb, RunCancelled, RunFailed, Worker, tool
from pgrun._agents_here import cancel_anywhere
from pgrun.db.records import LeftCall
from pgrun.testing import (
    ModelServer,
    cut,
    failed,
    hang,
    invalid_json,
    quota_exceeded,
    rate_limited,
    refusal,
    reply,
    server_error,
    tool_call,
    truncated,
)
from pgrun.testing.answers import Answer

SLOW = reply("It rains. " * 10, usage=USED, deltas=100, interval=0.1)


@tool(repeat="pure")
async def look(city: str) -> str:
    """Looks at a city."""
    return "sun"


@pytest.fixture
def counting() -> Iterator[ModelServer]:
    """A provider that also says what answers have used that it was told to stop."""
    with ModelServer(counts_cancelled=True) as server:
        yield server


def looks(city: str = "Rome", **how: Any) -> Answer:
    return reply(calls=[tool_call("look", {"city": city})], usage=USED, **how)


def asks(name: str, request: str) -> Answer:
    return reply(calls=[tool_call(name, {"request": request})], usage=USED)


def assert_all_agree(conn: Conn, provider: ModelServer) -> None:
    """The rows, all views, and the bill."""
    paid = provider.paid_tokens
    rows = "select sum((metrics ->> 'input_tokens')::int) i, sum((metrics ->> 'output_tokens')::int) o from pgrun.jobs"
    for query in (
        rows,
        *(
            f"select sum(input_tokens) i, sum(output_tokens) o from pgrun.usage_by_{each}"
            for each in ("day", "tree", "session")
        ),
    ):
        (found,) = conn.execute(query.encode()).fetchall()
        assert [int(each) for each in found.values()] == [paid.input_tokens, paid.output_tokens], query


async def test_how_long_the_first_answer_let_wait_stays_whatever_attempts_follow(
    db: PostgresDb, conn: Conn, provider: ModelServer
) -> None:
    provider.script(rate_limited(0.01), looks(delay=0.2), server_error(), cut(reply("Sun."), 5))
    async with Worker(db):
        run = await agent_at(provider, db, tools=[look]).arun("Rome?", background=True)
        ended = await run.awaited(timeout=10)
    assert (ended.content, ended.attempt) == ("Sun.", 3)
    first = one(conn, "select (data -> 'usage' ->> 'time_to_first_token')::float8 from pgrun.steps where step = 1")
    assert ended.metrics.time_to_first_token == first >= 0.2
    assert one(conn, "select (metrics ->> 'time_to_first_token')::float8 from pgrun.jobs") == first


async def test_an_answer_that_another_worker_takes_up_is_not_said_to_have_begun_at_once(
    db: PostgresDb, conn: Conn, provider: ModelServer
) -> None:
    provider.script(hang())
    run = await left_under_way(db, agent_at(provider, db), conn)
    provider.release()
    async with Worker(db):
        ended = await run.awaited(timeout=10)
    assert ended.metrics.total_tokens > 0
    assert ended.metrics.time_to_first_token is None


@pytest.mark.parametrize("answer", [reply("Hi"), refusal("No."), truncated("Hi")])
async def test_what_the_provider_said_with_the_last_answer_is_in_the_row_also_if_it_is_no_step(
    db: PostgresDb, conn: Conn, provider: ModelServer, answer: Answer
) -> None:
    provider.script(looks(), answer)
    async with Worker(db):
        run = await agent_at(provider, db, tools=[look]).arun("Rome?", background=True)
        ended = await run.awaited(timeout=10)
    last = ended.metrics.last_answer
    assert last is not None
    assert (last.provider, last.model) == ("openai.responses", "gpt-5-mini")
    assert last.response_id == [*provider.responses][-1]
    assert last.rate_limits is not None
    assert last.rate_limits["remaining_requests"] >= 0
    assert row_of(conn, run.run_id)["metrics"]["last_answer"] == last.model_dump()
    assert one(conn, "select model from pgrun.usage_by_day") == "gpt-5-mini", "of an agent with tools, too"


async def test_what_a_stopped_answer_has_used_is_counted_whoever_cancels(
    db: PostgresDb, conn: Conn, counting: ModelServer
) -> None:
    counting.script(SLOW, hang())
    agent = agent_at(counting, db)
    async with Worker(db):
        by_owner = await agent.arun("owner", background=True)
        await until_noted(conn, by_owner.run_id)
        await agent.acancel_run(by_owner.run_id)
        with pytest.raises(RunCancelled):
            await by_owner.aresult(timeout=10)
        await until(lambda: one(conn, "select count(*) from pgrun.left_calls") == 0)
    abandoned = await left_under_way(db, agent, conn, "nobody")
    counting.release()  # nobody holds it now, and it completes at the provider
    await until(lambda: [body["status"] for body in counting.responses.values()] == ["cancelled", "completed"])
    assert await cancel_anywhere(abandoned.run_id)
    assert one(conn, "select count(*) from pgrun.left_calls") == 0
    assert counting.paid == 2
    assert one(conn, "select count(*) from pgrun.jobs where (metrics ->> 'total_tokens')::int > 0") == 2
    assert_all_agree(conn, counting)


async def test_an_answer_that_came_just_before_the_cancel_is_counted_once(
    db: PostgresDb, conn: Conn, counting: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting.script(reply("Hi", usage=USED))
    agent = agent_at(counting, db, post_hooks=[lambda run_output: None])

    async def be_cancelled(turns: Any) -> None:
        await agent.acancel_run(turns.calls.context.run_id)
        await anyio.sleep_forever()

    monkeypatch.setattr("pgrun.run.loop.Turns.keep_last", be_cancelled)  # before it is recorded
    async with Worker(db):
        run = await agent.arun("Hello", background=True)
        with pytest.raises(RunCancelled):
            await run.aresult(timeout=10)
    assert row_of(conn, run.run_id)["metrics"]["total_tokens"] == 150
    assert one(conn, "select count(*) from pgrun.left_calls") == 0
    assert_all_agree(conn, counting)


async def test_a_stopped_answer_is_counted_once_and_not_while_its_run_is_running_again(
    db: PostgresDb, conn: Conn
) -> None:
    hand = await hire(db)
    run_id = await submit(db)
    claimed = await hand.claim_one()
    await hand.verbs.note_call(claimed, 1, "resp_1")
    ending = cancelled(claimed)
    ending.keeps_call = True
    await hand.verbs.finish([ending])
    left, used = LeftCall(run_id, "resp_1", "noop", None), {"total_tokens": 7, "cost_usd": 0.5}
    await hand.verbs.retry_ended(run_id)
    again = await hand.claim_one()
    await hand.verbs.forget_left_call(left, used)
    assert one(conn, "select count(*) from pgrun.left_calls") == 1
    await hand.complete(again)
    for _ in range(2):
        await hand.verbs.forget_left_call(left, used)
    assert row_of(conn, run_id)["metrics"] == {"total_tokens": 14, "cost_usd": 0.5}
    assert one(conn, "select count(*) from pgrun.left_calls") == 0


async def test_retries_repairs_failures_children_and_cancels_add_up_to_the_bill(
    db: PostgresDb, conn: Conn, counting: ModelServer
) -> None:
    child = agent_at(counting, db, "Child", tools=[look])
    parent = agent_at(counting, db, "Parent", tools=[child, look], output_schema=City)
    counting.script(asks("Child", "Rome?"), match="parent")
    counting.script(
        *(
            looks(),
            replace(failed("server_error"), usage=USED),
            cut(looks("Oslo"), 6),
            rate_limited(0.01),
            quota_exceeded(),
        ),
        reply("Both.", usage=USED),
        match="Rome?",
    )
    counting.script(
        *(
            cut(invalid_json(), clean=True),
            looks(),
            server_error(),
            invalid_json(),
            reply({"name": "Rome"}, usage=USED),
        ),
        match="parent",
    )
    counting.script(refusal("No."), match="refused")
    counting.script(SLOW, match="cancelled")
    async with Worker(db):
        answered = await parent.arun("parent", session_id="ada", background=True)
        refused = await child.arun("refused", session_id="ada", background=True)
        stopped = await child.arun("cancelled", session_id="bob", background=True)
        await until_noted(conn, stopped.run_id)
        await child.acancel_run(stopped.run_id)
        assert await answered.aresult(timeout=15) == City(name="Rome")
        with pytest.raises(RunFailed):
            await refused.aresult(timeout=10)
        with pytest.raises(RunCancelled):
            await stopped.aresult(timeout=10)
    assert one(conn, "select count(*) from pgrun.left_calls") == 0
    assert_all_agree(conn, counting)
    sessions = conn.execute("select session_id, runs from pgrun.usage_by_session order by 1").fetchall()
    assert [(row["session_id"], row["runs"]) for row in sessions] == [("ada", 3), ("bob", 1)]
    ended = await parent.aget_run_output(answered.run_id)
    assert ended is not None
    assert ended.metrics.children is not None
    tree = one(conn, "select total_tokens from pgrun.usage_by_tree where root_run_id = %s", answered.run_id)
    assert tree == ended.metrics.total_tokens + ended.metrics.children.total_tokens
