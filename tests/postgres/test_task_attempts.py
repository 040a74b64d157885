"""Many tasks in one worker: side by side, each stopped for itself, and none of them can harm the worker or another run."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from support.database import Conn
from support.rows import row_of, rows_of, until_all
from support.until import Heard, until, until_heard

from pgrun import PostgresDb, RetryPolicy, Run, RunCancelled, RunFailed, Worker

ONCE = RetryPolicy(max_attempts=1)


async def cancel(db: PostgresDb, run: Run[Any]) -> str:
    return await (await db.connected()).verbs.cancel(run.run_id)


async def test_cancelling_a_run_cancels_its_coroutine(db: PostgresDb, conn: Conn) -> None:
    said: list[str] = []

    @db.task
    async def wait() -> None:
        said.append("waits")
        try:
            await anyio.sleep(60)
        except anyio.get_cancelled_exc_class():
            said.append("cancelled")
            raise

    async with Worker(db):
        run = await wait.asubmit()
        await until(lambda: said)
        assert await cancel(db, run) == "cancelling"
        with pytest.raises(RunCancelled):
            await run.aresult(timeout=10)
    assert said == ["waits", "cancelled"]
    assert row_of(conn, run.run_id)["attempt"] == 1


async def test_only_the_cancelled_of_many_runs_is_stopped(db: PostgresDb, conn: Conn) -> None:
    """Runs that never wait share one task with the one that waits and is cancelled then."""
    gate = anyio.Event()

    @db.task
    async def work(number: int) -> int:
        if number % 10 == 5:
            await gate.wait()
        return number

    async with Worker(db, concurrency=100):
        runs = await work.asubmit_many({"number": number} for number in range(100))
        waiting = [run for number, run in enumerate(runs) if number % 10 == 5]
        await until_all(conn, "completed", [run.run_id for run in runs if run not in waiting])
        for run in waiting[::2]:
            await cancel(db, run)
        await until_all(conn, "cancelled", [run.run_id for run in waiting[::2]])
        assert {row["status"] for row in rows_of(conn, [run.run_id for run in waiting[1::2]])} == {"running"}
        gate.set()
        assert [await run.aresult(timeout=10) for run in waiting[1::2]] == [15, 35, 55, 75, 95]
        later = await work.asubmit(7)
        assert await later.aresult(timeout=10) == 7


async def test_a_run_that_does_not_let_itself_be_cancelled_completes(db: PostgresDb) -> None:
    started = anyio.Event()

    @db.task
    async def stubborn() -> str:
        started.set()
        try:
            await anyio.sleep(60)
        except anyio.get_cancelled_exc_class():
            return "no"
        return "yes"

    @db.task
    async def other() -> str:
        await anyio.sleep(0.01)
        return "fine"

    async with Worker(db, concurrency=1):
        run = await stubborn.asubmit()
        await started.wait()
        await cancel(db, run)
        assert await run.aresult(timeout=10) == "no"
        assert await (await other.asubmit()).aresult(timeout=10) == "fine"


async def test_a_run_that_is_cancelled_before_its_turn_is_not_begun(db: PostgresDb, conn: Conn, heard: Heard) -> None:
    """It is claimed already, but the runs before it keep the loop."""
    begun: list[int] = []

    @db.task
    async def block(number: int) -> None:
        begun.append(number)
        if number == 0:
            conn.execute("select pgrun.cancel(run_id) from pgrun.jobs where input = '{\"number\": 199}'")
            time.sleep(0.2)  # noqa: ASYNC251  the notification arrives in the meantime

    async with Worker(db, concurrency=200):
        await until_heard(heard, "listening")
        runs = await block.asubmit_many({"number": number} for number in range(200))
        await db.await_runs([run.run_id for run in runs], timeout=10)
    assert [row["status"] for row in rows_of(conn, [run.run_id for run in runs])] == ["completed"] * 199 + ["cancelled"]
    assert begun == [*range(199)]


async def test_runs_that_never_wait_do_not_keep_the_loop(db: PostgresDb) -> None:
    executed = 0
    in_one_go = 0

    @db.task
    async def count() -> None:
        nonlocal executed
        executed += 1

    await count.asubmit_many({} for _ in range(500))
    async with Worker(db, concurrency=500):
        with anyio.fail_after(10):
            while executed < 500:
                before = executed
                await anyio.lowlevel.checkpoint()
                in_one_go = max(in_one_go, executed - before)
    assert in_one_go <= 50


async def test_plain_functions_that_block_keep_nobody_waiting(db: PostgresDb) -> None:
    """As many at once as the worker has slots, and async ones beside them."""
    together = threading.Barrier(50)
    free = threading.Event()

    @db.task(retry=ONCE)
    def block() -> None:
        together.wait(10)
        free.wait(10)

    @db.task
    async def quick() -> str:
        return "done"

    async with Worker(db, concurrency=51):
        blocked = await block.asubmit_many({} for _ in range(50))
        assert await (await quick.asubmit()).aresult(timeout=10) == "done"
        free.set()
        for run in blocked:
            await run.aresult(timeout=10)


@pytest.mark.slow
async def test_two_thousand_sleep_at_once_in_one_worker(db: PostgresDb) -> None:
    asleep = 0
    all_asleep = anyio.Event()

    @db.task
    async def sleep(number: int) -> int:
        nonlocal asleep
        asleep += 1
        if asleep == 2000:
            all_asleep.set()
        await all_asleep.wait()
        return number

    async with Worker(db, concurrency=2000):
        runs = await sleep.asubmit_many({"number": number} for number in range(2000))
        assert [await run.aresult(timeout=15) for run in runs] == [*range(2000)]


async def test_what_one_run_sets_in_its_context_no_other_sees(db: PostgresDb) -> None:
    user: ContextVar[str] = ContextVar("user", default="nobody")

    @db.task
    async def act(name: str, *, waits: bool) -> str:
        before = user.get()
        user.set(name)
        if waits:
            await anyio.sleep(0.001)
        return f"{before} {user.get()}"

    async with Worker(db, concurrency=20):
        names = [f"user {number}" for number in range(40)]
        runs = await act.asubmit_many({"name": name, "waits": number % 3 == 0} for number, name in enumerate(names))
        assert [await run.aresult(timeout=10) for run in runs] == [f"nobody {name}" for name in names]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (asyncio.CancelledError, "CancelledError"),
        (lambda: SystemExit(1), "SystemExit"),
        (Unspeakable, "Unspeakable"),
        (lambda: ExceptionGroup("many", [ValueError("one")]), "ExceptionGroup"),
        (RecursionError, "RecursionError"),
        (lambda: ValueError("x" * 3_000_000), "ValueError"),
    ],
)
@pytest.mark.parametrize("is_async", [True, False])
async def test_whatever_a_run_raises_ends_that_run_and_no_other(
    db: PostgresDb, *, error: Callable[[], BaseException], kind: str, is_async: bool
) -> None:
    gate = anyio.Event()

    def fail() -> None:
        raise error()

    async def fail_async() -> None:
        await anyio.lowlevel.checkpoint()
        fail()

    @db.task
    async def other() -> str:
        await gate.wait()
        return "fine"

    failing = db.task(name="failing", retry=ONCE)(fail_async) if is_async else db.task(name="failing", retry=ONCE)(fail)
    async with Worker(db):
        bystander = await other.asubmit()
        with pytest.raises(RunFailed) as caught:
            await (await failing.asubmit()).aresult(timeout=5)
        assert caught.value.error_type == kind
        gate.set()
        assert await bystander.aresult(timeout=5) == "fine"
        assert await (await other.asubmit()).aresult(timeout=5) == "fine"


async def test_a_plain_function_that_outlives_the_grace_is_not_repeated(
    db: PostgresDb, conn: Conn, heard: Heard
) -> None:
    """Nothing can stop a thread, so the worker waits for it, and what it did is written."""
    started, go = threading.Event(), threading.Event()

    @db.task
    def slow() -> str:
        started.set()
        go.wait(10)
        return "paid"

    run = await slow.asubmit()
    async with anyio.create_task_group() as tasks, Worker(db, grace=0.01):
        await until(started.is_set)
        tasks.start_soon(_set_once_drained, heard, go)
    row = row_of(conn, run.run_id)
    assert (row["status"], row["output"], row["attempt"]) == ("completed", "paid", 1)


async def _set_once_drained(heard: Heard, go: threading.Event) -> None:
    await until_heard(heard, "drained")
    await anyio.sleep(0.1)
    go.set()
