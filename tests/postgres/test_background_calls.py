"""Stored runs whose provider works in the background: how they end, what is asked again or stopped, and what it adds up to."""

from itertools import pairwise
from typing import Any

import anyio
import psycopg
import pytest
from pydantic import BaseModel
from support.database import Conn
from support.rows import row_of
from support.settings import FAST
from support.tables import one
from support.until import until

from pgrun import Agent, OpenAIChat, OpenAIResponses, PostgresDb, RetryPolicy, RunCancelled, RunFailed, Worker, tool
from pgrun.db.embedded import EmbeddedPostgres
from pgrun.testing import (
    ModelServer,
    Usage,
    cut,
    failed,
    filtered,
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
from pgrun.testing.answers import Answer, HttpError

SOON = RetryPolicy(base_delay=0.02, max_attempts=4)
USED = Usage(100, 50)


class City(BaseModel):
    name: str


def agent_at(provider: ModelServer, db: PostgresDb, **options: Any) -> Agent[Any]:
    model = OpenAIResponses(
        "gpt-5-mini", base_url=provider.base_url, api_key="test", timeout=options.pop("timeout", 600)
    )
    return Agent(name="Answering", model=model, db=db, retry=SOON, **options)


async def until_noted(conn: Conn, run_id: str) -> str:
    call = await until(lambda: row_of(conn, run_id)["call"])
    return str(call["response_id"])


def status_at(provider: ModelServer, response_id: str) -> str:
    return str(provider.responses[response_id]["status"])


def assert_bill_agrees(conn: Conn, provider: ModelServer) -> None:
    paid = provider.paid_tokens
    assert one(conn, "select sum((metrics ->> 'total_tokens')::int) from pgrun.jobs") == (
        paid.input_tokens + paid.output_tokens
    )


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


@pytest.mark.parametrize("away", [server_error(503), quota_exceeded()])
async def test_an_attempt_that_cannot_reach_its_answer_leaves_it_to_the_next(
    db: PostgresDb, conn: Conn, provider: ModelServer, away: HttpError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgrun.models._responses_call._OUT_OF_REACH", -1.0)
    provider.script(cut(reply("Hi", usage=USED), 4))
    provider.script_lookups(*[away] * 3)
    async with Worker(db):
        run = await agent_at(provider, db).arun("Hello", background=True)
        assert await run.aresult(timeout=10) == "Hi"
    row = row_of(conn, run.run_id)
    assert row["fence"] > 1
    assert (len(provider.calls), provider.paid) == (1, 1)
    assert_bill_agrees(conn, provider)


async def test_a_run_that_gives_up_on_an_answer_has_it_stopped(
    db: PostgresDb, conn: Conn, provider: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgrun.models._responses_call._OUT_OF_REACH", -1.0)
    provider.script(cut(hang(), 3))
    provider.script_lookups(server_error(503))
    async with Worker(db):
        run = await agent_at(provider, db).arun("Hello", background=True, max_attempts=1)
        with pytest.raises(RunFailed):
            await run.aresult(timeout=10)
        await until(lambda: [body["status"] for body in provider.responses.values()] == ["cancelled"])


async def test_cancelling_a_run_stops_it_at_the_provider(db: PostgresDb, conn: Conn, provider: ModelServer) -> None:
    provider.script(hang())
    async with Worker(db):
        agent = agent_at(provider, db)
        run = await agent.arun("Hello", background=True)
        response_id = await until_noted(conn, run.run_id)
        assert await agent.acancel_run(run.run_id)
        with pytest.raises(RunCancelled):
            await run.aresult(timeout=10)
    assert status_at(provider, response_id) == "cancelled", "before the worker has gone"
    assert one(conn, "select count(*) from pgrun.left_calls") == 0


async def test_leaving_a_foreground_run_stops_it_at_the_provider(
    db: PostgresDb, conn: Conn, provider: ModelServer
) -> None:
    provider.script(hang())
    async with Worker(db):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(agent_at(provider, db).arun, "Hello")
            await until(lambda: conn.execute("select 1 from pgrun.jobs where call is not null").fetchone())
            tasks.cancel_scope.cancel()
        await until(lambda: [body["status"] for body in provider.responses.values()] == ["cancelled"])


async def test_what_cannot_be_stopped_now_is_left_to_another_try(
    db: PostgresDb, conn: Conn, provider: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    provider.script(hang())
    agent = agent_at(provider, db)
    async with Worker(db):
        run = await agent.arun("Hello", background=True)
        response_id = await until_noted(conn, run.run_id)
        provider.script_lookups(server_error(503))
        await agent.acancel_run(run.run_id)
        await until(lambda: "is not stopped at its provider yet" in caplog.text)
        conn.execute("update pgrun.left_calls set due_at = now()")
        conn.execute("select pg_notify('pgrun_cancel', 'left')")
        await until(lambda: status_at(provider, response_id) == "cancelled")


async def test_a_worker_that_leaves_gives_back_at_once_what_its_provider_works_on(
    db: PostgresDb, conn: Conn, provider: ModelServer
) -> None:
    provider.script(hang())
    agent = agent_at(provider, db)
    with anyio.fail_after(10):
        async with Worker(db, grace=60):
            run = await agent.arun("Hello", background=True)
            await until_noted(conn, run.run_id)
    row = row_of(conn, run.run_id)
    assert (row["status"], row["attempt"], row["metrics"]) == ("pending", 0, {})
    async with Worker(db):
        await provider.await_for_lookups(1)
        provider.release()
        assert await run.aresult(timeout=10) == "A made-up answer to: Hello"
    assert_bill_agrees(conn, provider)


async def test_an_answer_that_is_too_old_to_be_streamed_is_looked_at_by_whoever_takes_it_up(
    db: PostgresDb, conn: Conn
) -> None:
    with ModelServer(replay_window=0) as provider:
        provider.script(hang())
        agent = agent_at(provider, db)
        async with Worker(db):
            run = await agent.arun("Hello", background=True)
            await until_noted(conn, run.run_id)
        async with Worker(db):
            await provider.await_for_lookups(2)
            provider.release()
            assert await run.aresult(timeout=10) == "A made-up answer to: Hello"
        assert [each.status for each in provider.lookups][:2] == [400, 200]
        assert len(provider.calls) == 1
        assert_bill_agrees(conn, provider)


async def test_an_answer_that_is_only_queued_gives_its_slot_to_others(
    db: PostgresDb, conn: Conn, provider: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgrun.worker.journal._StoredJournal.patience", 0.1)
    monkeypatch.setattr("pgrun.worker.attempt._LOOK_AGAIN", 0.3)
    provider.script(hang(queued=True), "at once")
    agent = agent_at(provider, db)
    async with Worker(db, concurrency=1):
        queued = await agent.arun("queued", background=True, stream=True)
        await provider.await_for_calls(1)
        assert await (await agent.arun("other", background=True)).aresult(timeout=10) == "at once"
        await provider.await_for_lookups(2)
        provider.release()
        assert await queued.aresult(timeout=10) == "A made-up answer to: queued"
    row = row_of(conn, queued.run_id)
    assert (row["attempt"], row["error"]) == (1, None)
    assert row["fence"] > 2
    told = [each["kind"] for each in conn.execute("select kind from pgrun.events order by seq").fetchall()]
    assert told[:3] == ["started", "parked", "started"]
    assert not {"released", "retried"} & {*told}
    assert len(provider.calls) == 2
    assert_bill_agrees(conn, provider)


async def test_a_queued_answer_whose_run_is_cancelled_while_nobody_holds_it_is_stopped(
    db: PostgresDb, conn: Conn, provider: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgrun.worker.journal._StoredJournal.patience", 0.1)
    provider.script(hang(queued=True))
    agent = agent_at(provider, db)
    async with Worker(db):
        run = await agent.arun("queued", background=True)
        await until(lambda: (row := row_of(conn, run.run_id))["status"] == "pending" and row["call"])
        assert await agent.acancel_run(run.run_id)
        await until(lambda: [body["status"] for body in provider.responses.values()] == ["cancelled"])


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


@pytest.mark.slow
@pytest.mark.timeout(90)
@pytest.mark.parametrize("turns", [33, pytest.param(99, marks=pytest.mark.soak)])
async def test_a_long_run_writes_what_is_new_and_goes_on_from_its_last_step(
    own_server: EmbeddedPostgres, own_dsn: str, provider: ModelServer, turns: int
) -> None:
    """Up to a hundred turns with a history of 200 kB; on a server where nobody else writes."""
    async with PostgresDb(own_dsn, worker="external", settings=FAST) as db:
        with psycopg.connect(own_dsn, autocommit=True, row_factory=psycopg.rows.dict_row) as conn:
            await _take_turns(db, conn, provider, turns)


@pytest.mark.soak
@pytest.mark.timeout(90)
async def test_the_same_where_an_answer_is_lost_with_its_worker(
    own_server: EmbeddedPostgres, own_dsn: str, models: ModelServer
) -> None:
    async with PostgresDb(own_dsn, worker="external", settings=FAST) as db:
        with psycopg.connect(own_dsn, autocommit=True, row_factory=psycopg.rows.dict_row) as conn:
            await _take_turns(db, conn, models, 99, is_lost=True)


async def _take_turns(db: PostgresDb, conn: Conn, provider: ModelServer, turns: int, *, is_lost: bool = False) -> None:
    @tool(repeat="pure")
    async def look(number: int) -> str:
        """Looks."""
        return "x" * 1000

    written: list[int] = []

    def answer(body: dict[str, Any]) -> Answer:
        made = sum(item.get("type") == "function_call" for item in body["input"])
        if made % (turns // 3) == 0:
            written.append(one(conn, "select (pg_current_wal_insert_lsn() - '0/0')::bigint"))
        return reply(calls=[tool_call("look", {"number": made})], usage=USED) if made < turns else hang()

    provider.always(answer)
    agent = agent_at(provider, db, tools=[look], max_turns=200)
    async with Worker(db, grace=0):
        run = await agent.arun("Look. " + "y" * 200_000, background=True)
        await until(lambda: len(provider.calls) == turns + 1, within=60)
        if not is_lost:
            await until_noted(conn, run.run_id)
    sizes = [row["size"] for row in conn.execute("select length(data::text) as size from pgrun.steps").fetchall()]
    assert len(sizes) == 2 * turns
    assert max(sizes) < 3000
    thirds = [after - before for before, after in pairwise(written)]
    assert len(thirds) == 3
    assert max(thirds) < 1.5 * min(thirds) < 2_000_000, thirds
    async with Worker(db):
        await (provider.await_for_calls(turns + 2) if is_lost else provider.await_for_lookups(1))
        provider.release()
        await run.aresult(timeout=10)
    assert len(provider.calls) == turns + 1 + is_lost, "none but the last is made again, and that only if it is lost"
    assert one(conn, "select count(*) from pgrun.steps") == 2 * turns


async def test_what_is_said_while_an_answer_is_under_way_is_heard_after_it_whoever_takes_it_up(
    db: PostgresDb, conn: Conn, provider: ModelServer
) -> None:
    provider.script(hang())
    agent = agent_at(provider, db)
    async with Worker(db):
        run = await agent.arun("Hello", background=True)
        await until_noted(conn, run.run_id)
    await agent.asteer(run.run_id, "In French!")
    provider.release()
    async with Worker(db):
        assert await run.aresult(timeout=10) == "A made-up answer to: In French!"
    row = row_of(conn, run.run_id)
    assert (row["call"], row["attempt"]) == (None, 1)
    steps = conn.execute("select kind from pgrun.steps order by step").fetchall()
    assert [step["kind"] for step in steps] == ["model_call", "message"]
    assert one(conn, "select count(*) from pgrun.left_calls") == 0
    assert_bill_agrees(conn, provider)
