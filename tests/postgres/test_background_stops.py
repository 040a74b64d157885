"""Answers that a provider works on while nobody waits for them: they are stopped when nobody wants them, or taken up later."""

import anyio
import pytest
from support.answering import USED, agent_at, assert_bill_agrees, left_under_way, status_at, until_noted
from support.database import Conn
from support.rows import row_of
from support.tables import one
from support.until import until

from pgrun import PostgresDb, RunCancelled, RunFailed, Worker
from pgrun.testing import ModelServer, cut, hang, quota_exceeded, reply, server_error
from pgrun.testing.answers import HttpError


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


async def test_what_is_said_while_an_answer_is_under_way_is_heard_after_it_whoever_takes_it_up(
    db: PostgresDb, conn: Conn, provider: ModelServer
) -> None:
    provider.script(hang())
    agent = agent_at(provider, db)
    run = await left_under_way(db, agent, conn)
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
