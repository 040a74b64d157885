"""A worker that is awake: who submits to it notifies nobody, and still nothing waits for long."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import psycopg
import pytest
from support.database import Conn
from support.ear import Ear
from support.hands import hire, submit
from support.rows import until_all
from support.settings import FAST
from support.tables import one
from support.until import until

from pgrun import PostgresDb, Task, Worker
from pgrun.worker import pace

PATIENT = replace(FAST, lease=10.0, poll_interval=60.0)  # whoever is not told waits for a minute


@pytest.fixture(autouse=True)
def _soon_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a machine that is busy with other things."""
    monkeypatch.setattr(pace, "_MANY", 20)
    monkeypatch.setattr(pace, "_FEW", 1)
    monkeypatch.setattr(pace, "_WITHIN", 0.4)


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[PostgresDb]:
    async with PostgresDb(dsn, worker="external", settings=PATIENT) as database:
        yield database


@pytest.fixture
def quick(db: PostgresDb) -> Task[[], int]:
    @db.task
    async def quick() -> int:
        return 1

    return quick


def awake(conn: Conn) -> list[str]:
    """The workers that others rely on."""
    rows = conn.execute("select worker_id::text as id from pgrun.workers where awake_until > clock_timestamp()")
    return [row["id"] for row in rows.fetchall()]


@asynccontextmanager
async def flood(conn: Conn, task: Task[[], int]) -> AsyncIterator[None]:
    """Many submits one by one, from before a worker is awake until the block ends."""

    async def submit_forever() -> None:
        while True:
            await task.asubmit()

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(submit_forever)
        await until(lambda: awake(conn))
        yield
        tasks.cancel_scope.cancel()


def wakes(ear: Ear) -> list[str]:
    return [queue for channel, queue in ear.heard() if channel in ("wake", "soon")]


async def test_in_a_flood_a_worker_is_awake_and_nobody_is_notified(
    db: PostgresDb, conn: Conn, ear: Ear, quick: Task[[], int]
) -> None:
    async with Worker(db) as worker:
        async with flood(conn, quick):
            assert awake(conn) == [worker.worker_id]
            ear.heard()
            before = one(conn, "select count(*) from pgrun.jobs")
            await until(lambda: one(conn, "select count(*) from pgrun.jobs") > before + 200)
            assert len(wakes(ear)) < 10  # on a busy machine it may break its promise for a moment
        await until(lambda: not awake(conn), within=1)
        assert one(conn, "select awake_until from pgrun.workers") is None
        await until(lambda: one(conn, "select count(*) from pgrun.jobs where status <> 'completed'") == 0, within=1)
        ear.heard()
        await (await quick.asubmit()).aresult(timeout=1)
        assert wakes(ear) == ["default"]


async def test_what_commits_after_it_fell_asleep_is_found_within_a_second(
    db: PostgresDb, conn: Conn, dsn: str, ear: Ear, quick: Task[[], int]
) -> None:
    with psycopg.connect(dsn) as late:
        async with Worker(db):
            async with flood(conn, quick):
                run_id = insert(late)
            await until(lambda: not awake(conn), within=2)
            await anyio.sleep(0.2)
            ear.heard()
            late.commit()
            await until_all(conn, "completed", [run_id], within=1)
            assert wakes(ear) == []


def insert(conn: psycopg.Connection[tuple[str]]) -> str:
    """Submits in a transaction that stays open."""
    row = conn.execute("insert into pgrun.jobs (name, input) values ('quick', '{}') returning run_id::text").fetchone()
    assert row is not None
    return row[0]


async def test_a_name_that_it_does_not_know_still_wakes_others(
    db: PostgresDb, conn: Conn, ear: Ear, quick: Task[[], int]
) -> None:
    async with Worker(db), flood(conn, quick):
        ear.heard()
        await submit(db, name="unknown here", delay=5)  # soon, but not before the test ends: putting it off wakes too
        assert "default" in wakes(ear)
        for _ in range(20):  # on a busy machine the worker may just have broken its promise
            await submit(db, name="carries all it needs", kind="agent", definition={"model": {}}, delay=5)
            if not wakes(ear):
                break
        else:
            pytest.fail("a run that it can execute notified each time")


async def test_a_queue_that_it_does_not_serve_still_wakes_others(
    db: PostgresDb, conn: Conn, ear: Ear, quick: Task[[], int]
) -> None:
    await hire(db, queues=["mail"])
    async with Worker(db), flood(conn, quick):
        ear.heard()
        await submit(db, name="quick", queue="mail")
        assert "mail" in wakes(ear)


async def test_with_all_slots_taken_it_wakes_the_others(
    db: PostgresDb, conn: Conn, ear: Ear, quick: Task[[], int]
) -> None:
    gate = anyio.Event()

    @db.task
    async def wait() -> None:
        await gate.wait()

    async with Worker(db, concurrency=50):
        async with flood(conn, quick):
            await wait.asubmit_many({} for _ in range(50))
            await until(lambda: not awake(conn), within=3)
            assert one(conn, "select awake_until from pgrun.workers") is None
            await until(lambda: "default" in wakes(ear), within=1)
        gate.set()


@pytest.mark.parametrize("how", ["drains", "fails"])
async def test_who_leaves_is_not_relied_on(db: PostgresDb, conn: Conn, how: str, quick: Task[[], int]) -> None:
    with pytest.RaisesGroup(ZeroDivisionError, allow_unwrapped=True, flatten_subgroups=True):
        async with Worker(db) as worker, flood(conn, quick):
            if how == "drains":
                await worker.drain()
                await until(lambda: not awake(conn), within=0.5)
            raise ZeroDivisionError
    assert awake(conn) == []
    assert one(conn, "select awake_until from pgrun.workers") is None


async def test_what_a_dead_worker_was_relied_on_for_is_found_when_its_promise_ends(
    db: PostgresDb, conn: Conn, ear: Ear, quick: Task[[], int]
) -> None:
    async with Worker(db):
        dead = await hire(db, names=["quick"])
        await dead.verbs.promise_looks(dead.worker_id, 1.0)
        await anyio.sleep(0.1)
        ear.heard()
        run = await quick.asubmit()
        assert wakes(ear) == []
        assert await run.aresult(timeout=1.5) == 1
