"""The lease: kept while a worker lives, however busy its event loop is, and gone when others have taken over."""

import pytest
from support.agents import answering_agent, calls_for
from support.database import Conn
from support.netfault import Proxy
from support.processes import Processes
from support.rows import row_of, until_all, workers_of
from support.until import Heard, until, until_heard

from pgrun import PostgresDb, Worker
from pgrun.testing import ModelServer, hang

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

LEASE = 2.0


async def test_a_blocked_event_loop_keeps_the_lease_and_is_reported(conn: Conn, processes: Processes) -> None:
    blocked = processes.worker("--import", "support.blocking_agent", lease=LEASE)
    await blocked.ready()
    submitted = conn.execute("select pgrun.submit('Blocking', %s)::text as run_id", [f'"{LEASE * 2.2}"']).fetchone()
    assert submitted
    await until_all(conn, "running", [submitted["run_id"]])
    other = processes.worker(lease=LEASE)
    await other.ready()

    await until(lambda: workers_of(conn, blocked.pid)[0]["state"] == "blocked", shown=blocked)
    assert workers_of(conn, blocked.pid)[0]["blocked_for"].total_seconds() > 1
    await blocked.says(r"the event loop has been blocked for .*\n(.*\n)+.*blocking_agent.py.* in call\n.*time\.sleep\(")

    row = (await until_all(conn, "completed", [submitted["run_id"]]))[0]
    assert (row["attempt"], row["fence"], row["output"]) == (1, 1, "slept")
    await blocked.says("the event loop runs again after")
    await until(lambda: workers_of(conn, blocked.pid)[0]["state"] == "alive")
    assert "rescued" not in other.output


async def test_a_worker_that_was_cut_off_for_longer_than_its_lease_aborts_its_runs_and_comes_back(
    db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes, proxy: Proxy
) -> None:
    cut_off = processes.worker(lease=LEASE, dsn=proxy.conninfo)
    await cut_off.ready()
    models.script(hang(), "by the other")
    agent = answering_agent(db, models)
    run = await agent.arun("taken over", background=True)
    await models.await_for_calls(1)
    other = processes.worker(lease=LEASE)
    await other.ready()

    proxy.black_hole()
    assert await run.aresult(timeout=20) == "by the other"
    ended = row_of(conn, run.run_id)
    proxy.heal()

    await models.await_for_calls(1, outcome="aborted")
    await cut_off.says("was cut off for longer than its lease")
    await until(lambda: [worker["state"] for worker in workers_of(conn, cut_off.pid)] == ["dead", "alive"])
    assert row_of(conn, run.run_id) == ended
    other.kill()
    further = await agent.arun("further", background=True)
    await further.aresult(timeout=20)
    assert row_of(conn, further.run_id)["worker_id"] == workers_of(conn, cut_off.pid)[1]["worker_id"]


async def test_a_worker_that_was_cut_off_keeps_its_runs_when_nobody_has_taken_over(
    db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes, proxy: Proxy
) -> None:
    cut_off = processes.worker(lease=1.0, dsn=proxy.conninfo)
    worker_id = await cut_off.ready()
    models.script(hang())
    run = await answering_agent(db, models).arun("kept", background=True)
    await models.await_for_calls(1)

    proxy.black_hole()
    await until(lambda: workers_of(conn, cut_off.pid)[0]["state"] == "lost")
    proxy.heal()
    models.release()

    await run.aresult(timeout=20)
    row = row_of(conn, run.run_id)
    assert (row["attempt"], row["fence"], str(row["worker_id"])) == (1, 1, worker_id)
    assert calls_for(models, "kept") == ["answered"]


async def test_a_worker_that_was_declared_dead_writes_nothing_and_registers_anew(
    db: PostgresDb, conn: Conn, models: ModelServer, heard: Heard
) -> None:
    models.script(hang(), "second time")
    async with Worker(db) as worker:
        first_id = worker.worker_id
        run = await answering_agent(db, models).arun("twice", background=True)
        await models.await_for_calls(1)
        conn.execute("update pgrun.workers set stopped_at = now(), stop_reason = 'dead'")
        await until_heard(heard, "lease_lost", worker_id=first_id)
        await models.await_for_calls(1, outcome="aborted")
        assert await run.aresult(timeout=10) == "second time"
        assert worker.worker_id != first_id
        await until(lambda: worker.running == 0)
    assert (row_of(conn, run.run_id)["attempt"], row_of(conn, run.run_id)["fence"]) == (2, 2)
    assert calls_for(models, "twice") == ["aborted", "answered"]
