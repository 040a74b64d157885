"""Cancelling, wherever the run is and however it is done: the request to the model ends, and the database stays whole."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable

import anyio
import pytest
from support.agents import answering_agent, calls_for
from support.database import Conn
from support.processes import Processes
from support.rows import clock, row_of, rows_of
from support.settings import FAST
from support.until import until

from pgrun import Agent, PostgresDb, RunCancelled, RunOutput, Worker
from pgrun._ids import new_run_id
from pgrun.testing import ModelServer, hang

pytestmark = pytest.mark.slow

WAITING = "select from pg_locks l join pg_database d on d.oid = l.database where d.datname = current_database() and not granted"
PROMPTLY = 1.0  # seconds; a notification and an aborted request take milliseconds, the rest is for a busy machine


async def test_a_pending_run_is_cancelled_at_once_and_never_executed(
    db: PostgresDb, conn: Conn, models: ModelServer
) -> None:
    agent = answering_agent(db, models)
    cancelled = await agent.arun("never", background=True)
    other = await agent.arun("other", background=True)
    assert await agent.acancel_run(cancelled.run_id)
    async with Worker(db):
        await other.aresult(timeout=10)
        with pytest.raises(RunCancelled):
            await cancelled.aresult(timeout=10)
    assert row_of(conn, cancelled.run_id)["attempt"] == 0
    assert [call.text for call in models.calls] == ["other"]


async def test_a_held_run_is_cancelled_at_once_and_its_session_goes_on_without_it(
    db: PostgresDb, conn: Conn, models: ModelServer
) -> None:
    agent = answering_agent(db, models)
    models.script(hang())
    async with Worker(db):
        runs = [await agent.arun(text, background=True, session_id="s") for text in ("first", "second", "third")]
        await models.await_for_calls(1)
        assert row_of(conn, runs[1].run_id)["held"] == "session"
        assert await agent.acancel_run(runs[1].run_id)
        assert [row["status"] for row in rows_of(conn, [run.run_id for run in runs])] == [
            "running",
            "cancelled",
            "pending",
        ]
        models.release()
        await runs[2].aresult(timeout=10)
    assert [call.text for call in models.calls] == ["first", "third"]


async def test_a_running_run_is_stopped_and_what_its_model_answers_later_is_not_written(
    db: PostgresDb, conn: Conn, models: ModelServer
) -> None:
    models.script(hang())
    async with Worker(db):
        await _assert_cancel_stops(db, conn, models)


async def test_a_run_in_another_process_is_stopped(
    db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes
) -> None:
    models.script(hang())
    await processes.worker().ready()
    await _assert_cancel_stops(db, conn, models)


async def test_a_run_is_stopped_by_a_command_in_another_process(
    db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes
) -> None:
    models.script(hang())
    async with Worker(db):
        run = await answering_agent(db, models).arun("cancelled", background=True)
        await models.await_for_calls(1)
        assert await processes.pgrun("cancel", run.run_id).ends() == 0
        with pytest.raises(RunCancelled):
            await run.aresult(timeout=10)
    assert calls_for(models, "cancelled") == ["aborted"]


async def test_a_run_whose_worker_is_dead_is_cancelled_by_whoever_finds_it_dead(
    db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes
) -> None:
    models.script(hang(), hang())
    agent = answering_agent(db, models)
    worker = processes.worker(lease=1.5)
    await worker.ready()
    early, late = [await agent.arun(text, background=True) for text in ("early", "late")]
    await models.await_for_calls(2)
    worker.kill()

    assert await agent.acancel_run(early.run_id)
    assert row_of(conn, early.run_id)["status"] == "running"  # its worker may still be alive
    await until(lambda: conn.execute("select from pgrun.worker_status where state = 'lost'").fetchone() is not None)
    assert await agent.acancel_run(late.run_id)
    assert row_of(conn, late.run_id)["status"] == "cancelled"

    async with Worker(db):
        with pytest.raises(RunCancelled):
            await early.aresult(timeout=10)
    assert [row["attempt"] for row in rows_of(conn, [early.run_id, late.run_id])] == [1, 1]
    assert len(models.calls) == 2


async def _by_task_cancel(work: Awaitable[object], begun: Awaitable[object]) -> None:
    task = asyncio.ensure_future(work)
    await begun
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _by_asyncio_timeout(work: Awaitable[object], begun: Awaitable[object]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as tasks:
            tasks.create_task(_after(begun, lambda: limit.reschedule(0)))
            await work

    with pytest.raises(TimeoutError):
        await limited()


async def _by_anyio_scope(work: Awaitable[object], begun: Awaitable[object]) -> None:
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            tasks.start_soon(_after, begun, scope.cancel)
            await work
        assert scope.cancelled_caught


async def _by_a_failing_sibling(work: Awaitable[object], begun: Awaitable[object]) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    async def grouped() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_after(begun, fail))
            await work

    with pytest.raises(ExceptionGroup):
        await grouped()


@pytest.mark.parametrize("cancel", [_by_task_cancel, _by_asyncio_timeout, _by_anyio_scope, _by_a_failing_sibling])
async def test_cancelling_a_foreground_call_cancels_its_run(
    cancel: Callable[..., Awaitable[None]], db: PostgresDb, conn: Conn, models: ModelServer
) -> None:
    models.script(hang())
    run_id = new_run_id()
    async with Worker(db):
        call = answering_agent(db, models).arun("in the foreground", run_id=run_id)
        await cancel(call, models.await_for_calls(1))
        await models.await_for_calls(1, outcome="aborted", timeout=PROMPTLY)
        await until(lambda: row_of(conn, run_id)["status"] == "cancelled")
    assert len(models.calls) == 1


async def test_cancelling_the_task_of_a_worker_gives_its_runs_back_uncounted_at_once(
    db: PostgresDb, conn: Conn, models: ModelServer
) -> None:
    models.script(hang())
    run = await answering_agent(db, models).arun("given back", background=True)

    async def work() -> None:
        async with Worker(db):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await models.await_for_calls(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    row = row_of(conn, run.run_id)
    assert (row["status"], row["attempt"], row["fence"]) == ("pending", 0, 1)
    assert row["due_at"] <= clock(conn)
    await models.await_for_calls(1, outcome="aborted", timeout=PROMPTLY)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", range(3))
async def test_cancelling_at_any_instant_loses_no_run_and_leaks_nothing(
    seed: int, dsn: str, conn: Conn, models: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(seed)
    models.delay = 0.004
    background: list[str] = []
    async with PostgresDb(dsn, worker="external", settings=FAST) as db:
        agent = answering_agent(db, models)
        async with Worker(db):
            for _ in range(120):
                run_id = new_run_id()
                in_foreground = chance.random() < 0.4
                work = chance.choice([_wait_for, _submit, _work_for])
                await chance.choice([_task_cancel, _asyncio_timeout, _anyio_timeout])(
                    agent.arun("foreground", run_id=run_id) if in_foreground else work(agent, run_id),
                    chance.choice([0.0, chance.uniform(0, 0.005), chance.uniform(0, 0.03)]),
                )
                if in_foreground:
                    _assert_not_left_running(conn, run_id)
                else:
                    background.append(run_id)
            assert await (await agent.arun("usable as before", background=True)).aresult(timeout=10)
            await until(lambda: not conn.execute("select from pgrun.jobs where finished_at is null").fetchall())
    committed = conn.execute("select run_id::text, status from pgrun.jobs").fetchall()
    statuses = {row["run_id"]: row["status"] for row in committed}
    assert {statuses.get(run_id) for run_id in background} <= {None, "completed"}
    await until(lambda: _other_connections(conn) == 0)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_submit_that_asyncio_cancels_is_not_torn_from_its_statement(
    db: PostgresDb, conn: Conn, models: ModelServer
) -> None:
    agent = answering_agent(db, models)
    await agent.arun("connects", background=True)
    run_id = new_run_id()
    with conn.transaction():
        conn.execute("lock table pgrun.jobs in exclusive mode")
        call = asyncio.create_task(_submit(agent, run_id))
        await until(lambda: conn.execute(WAITING).fetchall())
        for _ in range(3):
            call.cancel()
            await asyncio.wait([call], timeout=0.05)
        assert not call.done()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert row_of(conn, run_id)["status"] == "pending"
    assert (await agent.arun("usable as before", background=True)).status == "pending"


async def _submit(agent: Agent[str], run_id: str) -> RunOutput[str]:
    return await agent.arun("background", background=True, run_id=run_id)


async def _wait_for(agent: Agent[str], run_id: str) -> str:
    return await (await _submit(agent, run_id)).aresult()


async def _work_for(agent: Agent[str], run_id: str) -> None:
    assert agent.db is not None
    async with Worker(agent.db):
        await _wait_for(agent, run_id)


async def _task_cancel(work: Awaitable[object], delay: float) -> None:
    task = asyncio.ensure_future(work)
    await asyncio.sleep(delay)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def _asyncio_timeout(work: Awaitable[object], delay: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(delay):
            await work


async def _anyio_timeout(work: Awaitable[object], delay: float) -> None:
    with anyio.move_on_after(delay):
        await work


def _assert_not_left_running(conn: Conn, run_id: str) -> None:
    row = conn.execute("select * from pgrun.jobs where run_id = %s", [run_id]).fetchone()
    assert row is None or row["finished_at"] or row["cancel_requested_at"], row


def _other_connections(conn: Conn) -> int:
    row = conn.execute(
        "select count(*) as n from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    ).fetchone()
    return row["n"] if row else 0


async def _assert_cancel_stops(db: PostgresDb, conn: Conn, models: ModelServer) -> None:
    agent = answering_agent(db, models)
    run = await agent.arun("cancelled", background=True)
    await models.await_for_calls(1)
    assert await agent.acancel_run(run.run_id)
    await models.await_for_calls(1, outcome="aborted", timeout=PROMPTLY)
    with pytest.raises(RunCancelled):
        await run.aresult(timeout=10)
    models.release()
    row = row_of(conn, run.run_id)
    assert (row["finished_at"] - row["cancel_requested_at"]).total_seconds() < PROMPTLY
    assert (row["status"], row["output"], row["attempt"]) == ("cancelled", None, 1)
    assert len(models.calls) == 1


async def _after(begun: Awaitable[object], then: Callable[[], object]) -> None:
    await begun
    then()
