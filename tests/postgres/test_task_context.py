"""What a task learns of its run and says of it: what it is, that it is cancelled, progress that others see."""

import threading
from typing import Any

import anyio
import pytest
from support.database import Conn
from support.rows import row_of, until_all
from support.tables import one
from support.until import Heard, until, until_heard

from pgrun import PostgresDb, RunCancelled, SyncTaskContext, TaskContext, UsageError, Worker
from pgrun.run.task_host import TaskHost
from pgrun.worker import progress as progress_notes


async def test_it_tells_what_the_run_is(db: PostgresDb) -> None:
    @db.task(max_attempts=2)
    async def tell(ctx: TaskContext, number: int) -> dict[str, Any]:
        return {**vars(ctx), "host": None, "number": number}

    @db.task(name="tell_here")
    def tell_here(ctx: SyncTaskContext, number: int) -> dict[str, Any]:
        return {**vars(ctx), "host": None, "number": number}

    async with Worker(db):
        for task in (tell, tell_here):
            run = await task.options(session_id="s", metadata={"user": "ada"}, max_attempts=2).asubmit(number=7)
            facts = {"run_id": run.run_id, "name": task.name, "attempt": 1, "max_attempts": 2, "session_id": "s"}
            more = {"parent_run_id": None, "metadata": {"user": "ada"}, "host": None, "number": 7}
            assert await run.aresult(timeout=10) == {**facts, **more}


async def test_progress_is_seen_by_waiters_and_in_sql(db: PostgresDb, conn: Conn) -> None:
    said, go = anyio.Event(), anyio.Event()

    @db.task
    async def count(ctx: TaskContext) -> None:
        ctx.progress(0.25, "a quarter")
        said.set()
        await go.wait()
        for done in range(1000):
            ctx.progress((done + 1, 1000))

    async with Worker(db):
        run = await count.asubmit()
        await said.wait()
        await until(lambda: row_of(conn, run.run_id)["progress"])
        progress = await run.aprogress()
        assert progress is not None
        assert (progress.fraction, progress.message, progress.done) == (0.25, "a quarter", None)
        assert one(conn, "select progress from pgrun.runs") == "25 % a quarter"
        go.set()
        await run.aresult(timeout=10)
    progress = await run.aprogress()
    assert progress is not None
    assert (progress.fraction, progress.done, progress.total, progress.message) == (1, 1000, 1000, None)
    assert one(conn, "select progress from pgrun.runs") == "100 % (1000 of 1000)"


async def test_progress_is_an_event_for_those_who_read(db: PostgresDb) -> None:
    read, go = threading.Event(), anyio.Event()

    @db.task
    def count(ctx: SyncTaskContext) -> None:
        read.wait(10)
        ctx.progress(0.5, "half")
        anyio.from_thread.run(go.wait)

    seen: list[tuple[str, Any]] = []
    async with Worker(db):
        run = await count.asubmit()
        async for event in run.aevents():
            seen.append((event.kind, event.data.get("message")))
            if event.kind == "started":
                read.set()
            if event.kind == "progress":
                go.set()
    assert seen == [("started", None), ("progress", "half"), ("completed", None)]


async def test_progress_comes_through_when_a_lock_on_the_row_is_gone(
    db: PostgresDb, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_notes, "_EVERY", 0.01)
    said, go = anyio.Event(), anyio.Event()

    @db.task
    async def count(ctx: TaskContext) -> None:
        await said.wait()
        ctx.progress(0.5, "half\0")
        await go.wait()

    async with Worker(db):
        run = await count.asubmit()
        await until_all(conn, "running", [run.run_id])
        with conn.transaction():
            conn.execute("select from pgrun.jobs for update")
            said.set()
            await anyio.sleep(0.05)
            assert row_of(conn, run.run_id)["progress"] is None
        await until(lambda: row_of(conn, run.run_id)["progress"])
        go.set()
        await run.aresult(timeout=10)
    assert row_of(conn, run.run_id)["progress"]["message"] == "half\ufffd"


@pytest.mark.parametrize("stops", ["returns", "raises"])
async def test_a_plain_function_learns_that_it_is_cancelled(
    db: PostgresDb, conn: Conn, heard: Heard, calls: list[str], stops: str
) -> None:
    started, go = threading.Event(), threading.Event()

    @db.task
    def work(ctx: SyncTaskContext) -> str:
        calls.append(str(ctx.cancelled))
        started.set()
        go.wait(10)
        calls.append(str(ctx.cancelled))
        if stops == "raises":
            ctx.raise_if_cancelled()
        return "all the same"

    async with Worker(db):
        run = await work.asubmit()
        await until(started.is_set)
        assert await run.acancel()
        await until_heard(heard, "cancelling", run_id=run.run_id)
        go.set()
        if stops == "raises":
            with pytest.raises(RunCancelled):
                await run.aresult(timeout=10)
        else:
            assert await run.aresult(timeout=10) == "all the same"
    assert calls == ["False", "True"]


async def test_called_without_a_run_it_does_as_if(db: PostgresDb) -> None:
    @db.task
    async def buy(ctx: TaskContext, cents: int) -> int:
        ctx.progress((1, 2), "half")
        await ctx.sleep(0)
        return await ctx.step("pay", lambda: cents * 2)

    @db.task
    def buy_here(ctx: SyncTaskContext, cents: int) -> int:
        assert not ctx.cancelled
        ctx.sleep(0)
        return ctx.step("pay", lambda: cents * 2)

    assert await buy(7) == 14
    assert buy_here(7) == 14


async def test_a_context_of_the_wrong_kind_is_refused(db: PostgresDb) -> None:
    async def wrong(ctx: SyncTaskContext) -> None: ...

    def wrong_here(ctx: TaskContext) -> None: ...

    async def twice(one: TaskContext, two: TaskContext) -> None: ...

    for function, message in ((wrong, "TaskContext"), (wrong_here, "SyncTaskContext"), (twice, "one is enough")):
        with pytest.raises(UsageError, match=message):
            db.task(function)


@pytest.mark.parametrize("reached", [-0.1, 1.5, (1, 0), (1, 2, 3), "half", float("nan")])
async def test_progress_that_cannot_be_is_refused(reached: Any) -> None:
    context = TaskContext.of_none("count", TaskHost())
    with pytest.raises(UsageError, match="a share from 0 to 1"):
        context.progress(reached)
