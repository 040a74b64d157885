"""A notification is a hint, never data: without it workers and waiters find everything by polling, a little later."""

import anyio
import pytest
from support.agents import answering_agent, calls_for
from support.database import Conn
from support.netfault import Proxy
from support.rows import clock, row_of
from support.settings import FAST
from support.until import Heard, until, until_heard

from pgrun import PostgresDb, RunCancelled, Worker
from pgrun.db import listener
from pgrun.testing import ModelServer, hang

pytestmark = pytest.mark.slow

POLLED = FAST.poll_interval * 1.1 + 0.8  # seconds; the interval is spread by a tenth, the rest is for a busy machine


async def test_runs_and_results_are_found_within_the_poll_interval_when_notifications_are_swallowed(
    listens_far: PostgresDb, proxy: Proxy, conn: Conn, models: ModelServer, heard: Heard
) -> None:
    agent = answering_agent(listens_far, models)
    async with Worker(listens_far):
        await until_heard(heard, "listening")
        proxy.swallows = True
        for number in range(3):
            run = await agent.arun(f"run {number}", background=True)
            await run.aresult(timeout=10)
            row = row_of(conn, run.run_id)
            assert (row["started_at"] - row["created_at"]).total_seconds() < POLLED
            assert (clock(conn) - row["finished_at"]).total_seconds() < POLLED
    assert "not_listening" not in [name for name, _ in heard[:-1]]


async def test_a_swallowed_cancel_reaches_the_worker_with_its_next_heartbeat(
    listens_far: PostgresDb, proxy: Proxy, conn: Conn, models: ModelServer, heard: Heard
) -> None:
    agent = answering_agent(listens_far, models)
    models.script(hang())
    async with Worker(listens_far):
        await until_heard(heard, "listening")
        proxy.swallows = True
        run = await agent.arun("cancelled", background=True)
        await models.await_for_calls(1)
        assert await agent.acancel_run(run.run_id)
        with pytest.raises(RunCancelled):
            await run.aresult(timeout=10)
    row = row_of(conn, run.run_id)
    heartbeat = FAST.lease / FAST.heartbeats_per_lease
    assert (row["finished_at"] - row["cancel_requested_at"]).total_seconds() < heartbeat + 0.8
    assert calls_for(models, "cancelled") == ["aborted"]


async def test_a_listener_that_is_cut_off_is_replaced_by_polling_and_comes_back(
    listens_far: PostgresDb, proxy: Proxy, conn: Conn, models: ModelServer, heard: Heard
) -> None:
    agent = answering_agent(listens_far, models)
    async with Worker(listens_far):
        await until_heard(heard, "listening")
        models.script(hang())
        run = await agent.arun("ends unheard", background=True)
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(run.aresult)
            await models.await_for_calls(1)
            proxy.refuse()
            await until_heard(heard, "not_listening")
            models.release()
        unheard = await agent.arun("submitted unheard", background=True)
        await unheard.aresult(timeout=POLLED)

        heard.clear()
        proxy.accept()
        await until_heard(heard, "listening")
        proxy.statements.clear()
        for number in range(3):
            run = await agent.arun(f"heard {number}", background=True)
            await run.aresult(timeout=10)
            row = row_of(conn, run.run_id)
            assert (row["started_at"] - row["created_at"]).total_seconds() < FAST.poll_interval * 0.9


async def test_an_answer_to_be_stopped_of_which_nobody_heard_is_looked_for_by_who_begins_to_listen(
    listens_far: PostgresDb, proxy: Proxy, conn: Conn, models: ModelServer, heard: Heard
) -> None:
    agent = answering_agent(listens_far, models)
    async with Worker(listens_far):
        await until_heard(heard, "listening")
        run = await agent.arun("ended", background=True)
        await run.aresult(timeout=10)
        proxy.refuse()
        await until_heard(heard, "not_listening")
        heard.clear()
        await anyio.sleep(0.5)  # what it looks for when it is cut off it has looked for
        conn.execute("insert into pgrun.left_calls (run_id, response_id) values (%s, 'resp_unheard')", [run.run_id])
        proxy.accept()
        await until_heard(heard, "listening")
        await until(lambda: not conn.execute("select from pgrun.left_calls where due_at <= now()").fetchall())


async def test_a_listener_on_a_dead_line_is_found_out_and_replaced(
    listens_far: PostgresDb, proxy: Proxy, models: ModelServer, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_PING_INTERVAL", 0.3)
    monkeypatch.setattr(listener, "_PING_DEADLINE", 0.3)
    agent = answering_agent(listens_far, models)
    async with Worker(listens_far):
        await until_heard(heard, "listening")
        proxy.black_hole()
        run = await agent.arun("over a dead line", background=True)
        await run.aresult(timeout=2 * POLLED)
        await until_heard(heard, "not_listening")
        heard.clear()
        proxy.heal()
        await until_heard(heard, "listening")


async def test_where_listen_does_not_work_it_is_said_once_and_results_are_polled_for(
    dsn: str,
    server: str,
    conn: Conn,
    models: ModelServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "_PROOF_DEADLINE", 0.2)
    monkeypatch.setattr(listener, "_TRY_AGAIN", 0.01)
    # Another database of the same server: LISTEN works there, and nothing of ours ever arrives.
    async with PostgresDb(dsn, worker="external", listen_url=server, settings=FAST) as db, Worker(db):
        agent = answering_agent(db, models)
        await until(lambda: "LISTEN does not work through" in caplog.text)
        for number in range(5):
            run = await agent.arun(f"run {number}", background=True)
            await run.aresult(timeout=10)
            row = row_of(conn, run.run_id)
            assert (row["started_at"] - row["created_at"]).total_seconds() < 0.9
        await anyio.sleep(0.5)  # for at least one more self-test
    assert caplog.text.count("LISTEN does not work through") == 1
