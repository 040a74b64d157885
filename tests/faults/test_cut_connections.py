"""The network fails between a process and Postgres: calls recover, results arrive, and nothing is done or written twice."""

from collections import Counter
from dataclasses import replace

import anyio
import pytest
from support.agents import answering_agent, calls_for
from support.database import Conn
from support.netfault import Proxy
from support.rows import row_of
from support.settings import FAST
from support.until import Heard, until, until_heard

from pgrun import Agent, DatabaseUnavailable, PostgresDb, RunOutput, Worker
from pgrun._ids import new_run_id
from pgrun.testing import ModelServer, reply, server_error

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

IMPATIENT = replace(FAST, statement_timeout=0.5, lease=10.0)
HOLE = 1.5  # seconds without the network: three times as long as a statement may take


async def test_runs_survive_resets_of_all_connections(proxy: Proxy, conn: Conn, models: ModelServer) -> None:
    models.always(reply("fine", delay=0.02))
    async with PostgresDb(proxy.conninfo, worker="external", settings=FAST) as db, Worker(db, concurrency=8):
        agent = answering_agent(db, models)
        texts = [f"run {number}" for number in range(120)]
        async with anyio.create_task_group() as submitters:
            for text in texts:
                submitters.start_soon(_ask, agent, text)
            for calls in (20, 50, 80):
                await models.await_for_calls(calls, timeout=20)
                proxy.cut()
    assert Counter(call.text for call in models.calls) == Counter(texts)
    assert _outcomes(conn) == {("completed", 1): 120}


async def test_calls_and_waiters_recover_from_a_black_hole(
    proxy: Proxy, db: PostgresDb, conn: Conn, models: ModelServer
) -> None:
    models.delay = 0.02
    texts = [f"run {number}" for number in range(60)]
    async with PostgresDb(proxy.conninfo, worker="external", settings=IMPATIENT) as far, Worker(far, concurrency=8):
        async with anyio.create_task_group() as callers:
            for text in texts[:20]:
                callers.start_soon(_ask, answering_agent(far, models), text)
            await models.await_for_calls(5, timeout=20)
            proxy.black_hole()
            for text in texts[20:40]:
                callers.start_soon(_ask, answering_agent(far, models), text)
            await anyio.sleep(HOLE)
            for text in texts[40:]:  # so that claims which were given up in the hole find something when they come out
                await answering_agent(db, models).arun(text, background=True)
            proxy.heal()
        await until(lambda: _outcomes(conn) == {("completed", 1): 60}, within=20)
    assert Counter(call.text for call in models.calls) == Counter(texts)


async def test_calls_and_waiters_recover_when_connections_are_refused_for_a_while(
    proxy: Proxy, conn: Conn, models: ModelServer
) -> None:
    models.delay = 0.02
    async with PostgresDb(proxy.conninfo, worker="external", settings=FAST) as db, Worker(db, concurrency=8):
        agent = answering_agent(db, models)
        texts = [f"run {number}" for number in range(40)]
        async with anyio.create_task_group() as callers:
            for text in texts[:20]:
                callers.start_soon(_ask, agent, text)
            await models.await_for_calls(5, timeout=20)
            proxy.refuse()
            for text in texts[20:]:
                callers.start_soon(_ask, agent, text)
            await anyio.sleep(1)
            proxy.accept()
    assert Counter(call.text for call in models.calls) == Counter(texts)
    assert _outcomes(conn) == {("completed", 1): 40}


async def test_a_database_that_stays_away_is_reported_after_the_reconnect_timeout(
    proxy: Proxy, models: ModelServer
) -> None:
    settings = replace(FAST, reconnect_timeout=0.3, statement_timeout=3.0)
    async with PostgresDb(proxy.conninfo, worker="external", settings=settings) as db:
        agent = answering_agent(db, models)
        run = await agent.arun("never executed", background=True)
        async with anyio.create_task_group() as callers:
            callers.start_soon(_expect_unavailable, run)
            await until(lambda: proxy.statements.count("look_at_runs") > 0)
            proxy.refuse()
            with pytest.raises(DatabaseUnavailable, match="not available"):
                await agent.arun("too late", background=True)
        proxy.accept()
        assert (await agent.arun("again", background=True)).status == "pending"


async def test_who_waits_for_a_database_that_was_away_for_long_goes_on_soon_after_it_is_back(
    proxy: Proxy, models: ModelServer
) -> None:
    async with PostgresDb(proxy.conninfo, worker="external") as db:
        agent = answering_agent(db, models)
        await agent.arun("before", background=True)
        proxy.refuse()
        async with anyio.create_task_group() as callers:
            for _ in range(20):
                callers.start_soon(agent.aget_run_output, new_run_id())
            await anyio.sleep(4)  # long enough for pauses that double to be in the way
            proxy.accept()
            back = anyio.current_time()
        assert anyio.current_time() - back < 2.5


async def test_a_database_that_never_answered_is_reported_at_once(proxy: Proxy) -> None:
    proxy.refuse()
    with anyio.fail_after(2), pytest.raises(DatabaseUnavailable, match="refused"):
        async with PostgresDb(proxy.conninfo):
            pass


async def test_runs_are_executed_over_a_slow_line(proxy: Proxy, conn: Conn, models: ModelServer) -> None:
    proxy.latency = 0.05
    async with PostgresDb(proxy.conninfo, worker="external", settings=FAST) as db, Worker(db):
        agent = answering_agent(db, models)
        async with anyio.create_task_group() as callers:
            for number in range(40):
                callers.start_soon(_ask, agent, f"run {number}")
    assert _outcomes(conn) == {("completed", 1): 40}
    assert proxy.statements.count("finish_runs") < 20  # those that end together are written together


async def test_a_finish_whose_answer_is_lost_counts_once(
    proxy: Proxy, conn: Conn, models: ModelServer, heard: Heard
) -> None:
    async with PostgresDb(proxy.conninfo, worker="external", settings=FAST) as db, Worker(db):
        proxy.lose_answer("finish_runs")
        run = await answering_agent(db, models).arun("once", background=True)
        await run.aresult(timeout=10)
        await until_heard(heard, "completed", run_id=run.run_id)
    assert proxy.lost == ["finish_runs"]
    assert (row_of(conn, run.run_id)["attempt"], row_of(conn, run.run_id)["fence"]) == (1, 1)
    assert calls_for(models, "once") == ["answered"]
    assert "stale" not in [name for name, _ in heard]


async def test_a_submit_whose_answer_is_lost_inserts_one_run(proxy: Proxy, conn: Conn, models: ModelServer) -> None:
    async with PostgresDb(proxy.conninfo, worker="external", settings=FAST) as db:
        agent = answering_agent(db, models)
        proxy.lose_answer("submit_run")
        first = await agent.arun("first", background=True, session_id="conversation")
        second = await agent.arun("second", background=True, session_id="conversation")
        assert (first.status, first.session_id) == ("pending", "conversation")
    assert proxy.lost == ["submit_run"]
    rows = conn.execute("select run_id::text, session_seq, held from pgrun.jobs order by session_seq").fetchall()
    assert [(*row.values(),) for row in rows] == [(first.run_id, 1, None), (second.run_id, 2, "session")]


async def test_runs_of_a_claim_whose_answer_is_lost_are_given_back_and_executed(
    proxy: Proxy, conn: Conn, models: ModelServer, heard: Heard
) -> None:
    async with PostgresDb(proxy.conninfo, worker="external", settings=FAST) as db:
        agent = answering_agent(db, models)
        runs = [await agent.arun(text, background=True) for text in ("one", "two")]
        proxy.lose_answer("claim_runs")
        async with Worker(db):
            await until(lambda: proxy.lost)
            assert [row_of(conn, run.run_id)["status"] for run in runs] == ["running", "running"]
            for run in runs:
                await run.aresult(timeout=20)
    for run in runs:
        assert (row_of(conn, run.run_id)["attempt"], row_of(conn, run.run_id)["fence"]) == (1, 2)
        assert calls_for(models, str(run.input)) == ["answered"]


async def test_a_retry_whose_answer_is_lost_uses_one_attempt(proxy: Proxy, conn: Conn, models: ModelServer) -> None:
    models.script(server_error(), "second time")
    async with PostgresDb(proxy.conninfo, worker="external", settings=FAST) as db, Worker(db):
        proxy.lose_answer("retry_run")
        run = await answering_agent(db, models).arun("twice", background=True)
        assert await run.aresult(timeout=10) == "second time"
    assert proxy.lost == ["retry_run"]
    assert (row_of(conn, run.run_id)["attempt"], row_of(conn, run.run_id)["fence"]) == (2, 2)


async def test_a_cancel_whose_answer_is_lost_is_answered_all_the_same(
    proxy: Proxy, conn: Conn, models: ModelServer
) -> None:
    async with PostgresDb(proxy.conninfo, worker="external", settings=FAST) as db:
        agent = answering_agent(db, models)
        run = await agent.arun("never", background=True)
        proxy.lose_answer("cancel_run")
        assert await agent.acancel_run(run.run_id)
    assert proxy.lost == ["cancel_run"]
    assert row_of(conn, run.run_id)["status"] == "cancelled"


async def test_a_worker_whose_registration_and_goodbye_lose_their_answers_is_known_once(
    proxy: Proxy, conn: Conn
) -> None:
    async with PostgresDb(proxy.conninfo, worker="external", settings=FAST) as db:
        proxy.lose_answer("register_worker", "stop_worker")
        async with Worker(db) as worker:
            pass
    assert proxy.lost == ["register_worker", "stop_worker"]
    workers = conn.execute("select worker_id::text, state from pgrun.worker_status").fetchall()
    assert workers == [{"worker_id": worker.worker_id, "state": "stopped"}]


async def _ask(agent: Agent[str], text: str) -> None:
    run = await agent.arun(text, background=True)
    assert await run.aresult(timeout=30)


async def _expect_unavailable(run: RunOutput[str]) -> None:
    with pytest.raises(DatabaseUnavailable):
        await run.aresult()


def _outcomes(conn: Conn) -> dict[tuple[str, int], int]:
    """How many runs have each pair of status and attempt."""
    rows = conn.execute("select status, attempt, count(*) as n from pgrun.jobs group by 1, 2").fetchall()
    return {(row["status"], row["attempt"]): row["n"] for row in rows}
