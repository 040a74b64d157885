"""Sleeps of a task: recorded once, over by the database's clock, and long ones leave their slot to others."""

import threading
from typing import Any

import anyio
import pytest
from support.database import Conn
from support.hands import hire, submit
from support.rows import row_of, steps_of, until_all
from support.settings import SOON
from support.tables import one
from support.until import Heard, until, until_heard

from pgrun import PostgresDb, RunCancelled, SyncTaskContext, TaskContext, Worker
from pgrun.worker import task_run


@pytest.fixture
def long_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sleep is long enough to give the slot away."""
    monkeypatch.setattr(task_run, "_SHORT", 0.0)


async def test_a_sleep_is_recorded_once_and_ends_by_the_databases_clock(db: PostgresDb, conn: Conn) -> None:
    run_id, hand = await submit(db), await hire(db)
    claimed = await hand.claim_one()
    sleep: dict[str, Any] = {"number": 1, "name": "sleep"}
    assert await hand.verbs.record_sleep(claimed, **sleep, seconds=60) == 60
    repeated = await hand.verbs.record_sleep(claimed, **sleep, seconds=60)
    assert repeated is not None
    assert 50 < repeated < 60
    conn.execute("update pgrun.steps set data = jsonb_build_object('until', now() - interval '1 h')")
    found = await hand.verbs.task_run(run_id)
    assert [(step["kind"], step["remaining"] < -3500) for step in found.steps] == [("sleep", True)]


@pytest.mark.usefixtures("long_sleeps")
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_long_sleep_gives_the_slot_back_and_goes_on_after_it(
    db: PostgresDb, conn: Conn, calls: list[str], *, is_async: bool
) -> None:
    @db.task
    async def wait(ctx: TaskContext) -> int:
        calls.append("begins")
        await ctx.step("pay", calls.append, "paid")
        await ctx.sleep(3600)
        return ctx.attempt

    @db.task
    def wait_here(ctx: SyncTaskContext) -> int:
        calls.append("begins")
        ctx.step("pay", calls.append, "paid")
        ctx.sleep(3600)
        return ctx.attempt

    @db.task
    async def other() -> str:
        return "done"

    async with Worker(db, concurrency=1):
        run = await (wait if is_async else wait_here).asubmit()
        (row,) = await until_all(conn, "pending", [run.run_id])
        await until(lambda: row_of(conn, run.run_id)["fence"] and row_of(conn, run.run_id)["status"] == "pending")
        row = row_of(conn, run.run_id)
        assert (row["attempt"], row["error"]) == (0, None)
        assert 3500 < (row["due_at"] - row["started_at"]).total_seconds() < 3700
        assert await (await other.asubmit()).aresult(timeout=10) == "done"
        conn.execute("update pgrun.steps set data = jsonb_build_object('until', now()) where kind = 'sleep'")
        conn.execute("select pgrun.retry(%s)", [run.run_id])
        assert await run.aresult(timeout=10) == 1
    assert calls == ["begins", "paid", "begins"]
    assert one(conn, "select count(*) from pgrun.attempts") == 0


async def test_a_short_sleep_stays_in_its_slot_and_is_over_once(db: PostgresDb, conn: Conn, calls: list[str]) -> None:
    @db.task(retry=SOON)
    async def wait(ctx: TaskContext) -> None:
        for _ in range(2):
            await ctx.sleep(0.01)
        calls.append("awake")
        if len(calls) == 1:
            conn.execute("update pgrun.steps set data = jsonb_build_object('until', now() - interval '1 h')")
            raise ConnectionError("no")

    async with Worker(db):
        run = await wait.asubmit()
        await run.aresult(timeout=10)
    assert row_of(conn, run.run_id)["fence"] == 2
    assert [row["name"] for row in steps_of(conn, run.run_id)] == ["sleep", "sleep#2"]


@pytest.mark.usefixtures("long_sleeps")
async def test_a_sleep_inside_of_a_task_group_ends_the_attempt_all_the_same(db: PostgresDb, conn: Conn) -> None:
    @db.task
    async def wait(ctx: TaskContext) -> str:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ctx.sleep, 0.05)
                await ctx.sleep(0.05)
        except Exception:
            return "a sleep is no error"
        return "rested"

    async with Worker(db):
        assert await (await wait.asubmit()).aresult(timeout=10) == "rested"


@pytest.mark.parametrize("is_early", [True, False])
async def test_a_cancel_meets_a_run_that_sleeps_in_its_thread(
    db: PostgresDb, conn: Conn, heard: Heard, monkeypatch: pytest.MonkeyPatch, *, is_early: bool
) -> None:
    """Also one that came just before it fell asleep."""
    monkeypatch.setattr(task_run, "_SHORT", 60.0)
    started, go = threading.Event(), threading.Event()

    @db.task(retry=SOON)
    def work(ctx: SyncTaskContext) -> None:
        started.set()
        go.wait(10)
        ctx.sleep(30)

    async with Worker(db):
        run = await work.asubmit()
        await until(started.is_set)
        if not is_early:
            go.set()
            await until(lambda: steps_of(conn, run.run_id))
        assert await run.acancel()
        await until_heard(heard, "cancelling", run_id=run.run_id)
        go.set()
        with pytest.raises(RunCancelled):
            await run.aresult(timeout=10)
