"""How the function of a task is called: in a process of its own, inside of middleware, for long, and with much to say."""

import os
import signal
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import computing
from support.database import Conn
from support.rows import row_of
from support.settings import FAST
from support.tables import one
from support.until import until

from pgrun import (
    Discard,
    PostgresDb,
    RetryPolicy,
    RunCancelled,
    RunFailed,
    SyncTaskContext,
    TaskContext,
    UsageError,
    Worker,
)

SOON = RetryPolicy(base_delay=0.01, max_attempts=2)
Next = Callable[[], Coroutine[Any, Any, Any]]


async def test_a_function_in_a_process_gives_its_result_and_its_errors(db: PostgresDb, conn: Conn) -> None:
    square = db.task(processes=True)(computing.square)
    fail = db.task(processes=True, max_attempts=1)(computing.fail)
    give_up = db.task(processes=True)(computing.give_up)
    die = db.task(processes=True, max_attempts=1)(computing.die)
    async with Worker(db):
        number, pid = await (await square.asubmit(7)).aresult(timeout=15)
        assert number == 49
        assert pid != os.getpid()
        with pytest.raises(RunFailed, match="LookupError: no") as caught:
            await (await fail.asubmit("no")).aresult(timeout=15)
        assert "raise LookupError(message)" in caught.value.details["traceback"]
        with pytest.raises(RunFailed, match="Discard: enough"):
            await (await give_up.asubmit("enough")).aresult(timeout=15)
        with pytest.raises(RunFailed, match="BrokenWorkerProcess"):
            await (await die.asubmit()).aresult(timeout=15)
        assert (await (await square.asubmit(8)).aresult(timeout=15))[0] == 64


@pytest.mark.parametrize("end", ["timeout", "cancel"])
async def test_a_process_is_killed_when_its_run_is_to_stop(db: PostgresDb, tmp_path: Path, end: str) -> None:
    mark = tmp_path / "mark"
    hang = db.task(processes=True, max_attempts=1, timeout=1.5 if end == "timeout" else None)(computing.hang)
    square = db.task(processes=True)(computing.square)
    async with Worker(db):
        await (await square.asubmit(7)).aresult(timeout=15)  # a process that is there already begins at once
        run = await hang.asubmit(str(mark))
        pid = int(await until(lambda: mark.exists() and mark.read_text(encoding="utf-8")))
        if end == "cancel":
            await run.acancel()
        with pytest.raises(RunCancelled if end == "cancel" else RunFailed):
            await run.aresult(timeout=15)
        await until(lambda: not is_alive(pid))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIG_DFL)
    except ProcessLookupError:
        return False
    return True


async def test_what_no_other_process_can_find_is_refused(db: PostgresDb) -> None:
    def inside() -> None: ...

    async def not_plain() -> None: ...

    def asks(ctx: SyncTaskContext) -> None: ...

    for function, message in ((inside, "top of a module"), (not_plain, "plain functions"), (asks, "without a context")):
        with pytest.raises(UsageError, match=message):
            db.task(processes=True)(function)


async def test_middleware_goes_around_each_execution(db: PostgresDb, conn: Conn) -> None:
    said: list[Any] = []

    @db.middleware
    async def outer(ctx: TaskContext, call_next: Next) -> Any:
        said.append(("outer", ctx.run_id, ctx.attempt, ctx.metadata))
        try:
            return await call_next()
        except ValueError:
            said.append("outer saw an error")
            raise

    async def double(ctx: TaskContext, call_next: Next) -> Any:
        return 2 * await call_next()

    @db.task(retry=SOON, middleware=[double])
    def work(number: int) -> int:
        said.append(number)
        if said.count(number) == 1:
            raise ValueError("no")
        return number

    async with Worker(db):
        run = await work.options(metadata={"trace": "t1"}).asubmit(7)
        assert await run.aresult(timeout=10) == 14
    first, second = [("outer", run.run_id, attempt, {"trace": "t1"}) for attempt in (1, 2)]
    assert said == [first, 7, "outer saw an error", second, 7]
    assert one(conn, "select count(*) from pgrun.attempts") == 1


async def test_middleware_may_answer_for_the_task_or_end_the_run(db: PostgresDb) -> None:
    async def guard(ctx: TaskContext, call_next: Next) -> Any:
        if ctx.metadata.get("stop"):
            raise Discard("not today")
        return await ctx.step("answer", lambda: "instead")

    @db.task(middleware=[guard])
    async def work() -> str:
        raise AssertionError("not called")

    async with Worker(db):
        assert await (await work.asubmit()).aresult(timeout=10) == "instead"
        with pytest.raises(RunFailed, match="not today"):
            await (await work.options(metadata={"stop": True}).asubmit()).aresult(timeout=10)


async def test_what_middleware_makes_of_a_result_has_to_fit_too(db: PostgresDb) -> None:
    async def spoil(ctx: TaskContext, call_next: Next) -> Any:
        await call_next()
        return "seven"

    @db.task(middleware=[spoil], max_attempts=1)
    async def work() -> int:
        return 7

    async with Worker(db):
        with pytest.raises(RunFailed, match="OutputInvalid"):
            await (await work.asubmit()).aresult(timeout=10)


async def test_a_plain_function_that_outlasts_many_leases_stays_with_its_worker(conn: Conn, dsn: str) -> None:
    """Its worker beats meanwhile, and others that look after lost runs find none."""
    db = PostgresDb(dsn, worker="external", settings=replace(FAST, lease=1.0))
    go = threading.Event()

    @db.task
    def compute() -> str:
        go.wait(20)
        return "computed"

    async with db, Worker(db), Worker(db, queues=["other"]):
        run = await compute.asubmit()
        started = await until(lambda: row_of(conn, run.run_id)["started_at"])
        lasted = "select count(*) from pgrun.workers where lease_until > %s + 2.2 * lease"
        await until(lambda: one(conn, lasted, started) == 2, within=15)
        go.set()
        assert await run.aresult(timeout=10) == "computed"
    row = row_of(conn, run.run_id)
    assert (row["attempt"], row["fence"]) == (1, 1)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("megabytes", [2, pytest.param(50, marks=pytest.mark.soak)])
async def test_megabytes_go_in_and_come_out(db: PostgresDb, conn: Conn, megabytes: int) -> None:
    """Waiters get them, too; the notification has nothing but the id."""
    much = "0123456789" * 100_000 * megabytes

    @db.task
    async def echo(text: str) -> str:
        return text[::-1]

    async with Worker(db):
        run = await echo.asubmit(much)
        assert await run.aresult(timeout=40) == much[::-1]
        (again,) = await db.await_runs([run], timeout=10)
        assert again.input["text"] == much
    assert row_of(conn, run.run_id)["attempt"] == 1
