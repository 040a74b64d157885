"""What a task can do with its run: steps that are taken once, sleeps that survive, progress that others see."""

import threading
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from support.database import Conn
from support.hands import hire, lose, submit
from support.rows import Row, row_of, until_all
from support.tables import one
from support.until import Heard, until, until_heard

from pgrun import (
    OutputInvalid,
    PostgresDb,
    RetryPolicy,
    RunCancelled,
    RunFailed,
    SyncTaskContext,
    TaskContext,
    UsageError,
    Worker,
)
from pgrun.run.task_host import TaskHost
from pgrun.worker import progress as progress_notes
from pgrun.worker import task_run

SOON = RetryPolicy(base_delay=0.01, max_attempts=3)


@dataclass
class Receipt:
    number: int
    items: tuple[str, ...]


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def long_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sleep is long enough to give the slot away."""
    monkeypatch.setattr(task_run, "_SHORT", 0.0)


def steps(conn: Conn, run_id: str) -> list[Row]:
    return conn.execute("select * from pgrun.steps where run_id = %s order by step", [run_id]).fetchall()


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


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_step_is_taken_once_and_its_result_given_to_later_attempts(
    db: PostgresDb, conn: Conn, calls: list[str], *, is_async: bool
) -> None:
    def pay(cents: int) -> Receipt:
        calls.append(f"pay {cents}")
        return Receipt(cents, ("tea", "milk"))

    async def pay_async(cents: int) -> Receipt:
        return pay(cents)

    def fail_twice(receipts: list[Receipt]) -> list[Receipt]:
        calls.append("went on")
        if calls.count("went on") < 3:
            raise ConnectionError("no")
        return receipts

    @db.task(retry=SOON)
    async def buy(ctx: TaskContext) -> list[Receipt]:
        return fail_twice([await ctx.step("pay", pay_async, 5), await ctx.step("pay", pay, cents=6)])

    @db.task(retry=SOON)
    def buy_here(ctx: SyncTaskContext) -> list[Receipt]:
        return fail_twice([ctx.step("pay", pay, 5), ctx.step("pay", pay, cents=6)])

    async with Worker(db):
        run = await (buy if is_async else buy_here).asubmit()
        assert await run.aresult(timeout=10) == [Receipt(5, ("tea", "milk")), Receipt(6, ("tea", "milk"))]
    assert calls == ["pay 5", "pay 6", *["went on"] * 3]
    assert [
        (row["step"], row["kind"], row["name"], row["attempt"], row["data"]) for row in steps(conn, run.run_id)
    ] == [
        (1, "step", "pay", 1, {"number": 5, "items": ["tea", "milk"]}),
        (2, "step", "pay#2", 1, {"number": 6, "items": ["tea", "milk"]}),
    ]


async def test_what_a_step_returns_is_the_same_in_each_attempt(db: PostgresDb, calls: list[str]) -> None:
    """A tuple without an annotation is a list in JSON, so it is one at once."""

    @db.task(retry=SOON)
    async def look(ctx: TaskContext) -> bool:
        found = await ctx.step("look", lambda: (1, 2))
        calls.append(repr(found))
        if len(calls) < 2:
            raise ConnectionError("no")
        return True

    async with Worker(db):
        assert await (await look.asubmit()).aresult(timeout=10)
    assert calls == ["[1, 2]"] * 2


async def test_steps_side_by_side_find_their_own_results(db: PostgresDb, calls: list[str]) -> None:
    gate = anyio.Event()

    async def work(name: str) -> str:
        calls.append(name)
        if name == "slow":
            await gate.wait()
        return name

    @db.task(retry=SOON)
    async def both(ctx: TaskContext) -> dict[str, str]:
        found: dict[str, str] = {}

        async def take(name: str) -> None:
            found[name] = await ctx.step("work", work, name)
            if name == "quick" and ctx.attempt == 1:
                raise ConnectionError("no")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take, "slow")
            tasks.start_soon(take, "quick")
            if ctx.attempt > 1:
                gate.set()
        return found

    async with Worker(db):
        assert await (await both.asubmit()).aresult(timeout=10) == {"slow": "slow", "quick": "quick"}
    assert calls == ["slow", "quick", "slow"]


async def test_a_step_that_raises_is_not_recorded(db: PostgresDb, conn: Conn, calls: list[str]) -> None:
    def fail() -> None:
        calls.append("fail")
        raise LookupError("no")

    @db.task(retry=SOON)
    async def work(ctx: TaskContext) -> None:
        await ctx.step("fail", fail)

    async with Worker(db):
        run = await work.asubmit()
        with pytest.raises(RunFailed, match="LookupError: no"):
            await run.aresult(timeout=10)
    assert calls == ["fail"] * 3
    assert steps(conn, run.run_id) == []


async def test_a_recorded_result_that_no_longer_fits_is_said_and_not_guessed(db: PostgresDb, conn: Conn) -> None:
    def count() -> int:
        return 7

    @db.task
    async def work(ctx: TaskContext) -> int:
        return await ctx.step("count", count)

    run = await work.options(delay=3600).asubmit()
    conn.execute(
        "insert into pgrun.steps (run_id, step, kind, name, attempt, data, duration) "
        "values (%s, 1, 'step', 'count', 1, '\"seven\"', 0)",
        [run.run_id],
    )
    conn.execute("select pgrun.retry(%s)", [run.run_id])
    async with Worker(db):
        with pytest.raises(RunFailed, match="the stored result of step count") as caught:
            await run.aresult(timeout=10)
    assert isinstance(caught.value.__cause__, OutputInvalid)


async def test_a_persons_retry_goes_on_after_the_steps_of_a_task(db: PostgresDb, calls: list[str]) -> None:
    @db.task(max_attempts=1)
    async def work(ctx: TaskContext) -> str:
        await ctx.step("pay", lambda: calls.append("paid"))
        if len(calls) == 1:
            calls.append("failed")
            raise ConnectionError("no")
        return "done"

    async with Worker(db):
        run = await work.asubmit()
        with pytest.raises(RunFailed):
            await run.aresult(timeout=10)
        await (await db.connected()).verbs.retry_ended(run.run_id)
        assert await run.aresult(timeout=10) == "done"
    assert calls == ["paid", "failed"]


async def test_a_stale_attempt_records_nothing(db: PostgresDb, conn: Conn) -> None:
    run_id, hand = await submit(db), await hire(db)
    stale = await hand.claim_one()
    lose(conn, hand)
    other = await hire(db)
    await other.verbs.rescue(other.worker_id)
    await other.claim_one()
    step: dict[str, Any] = {"number": 1, "name": "pay"}
    kept = await hand.verbs.record_step(stale, **step, kind="step", data=b"7", duration=0, metrics=None)
    assert kept is None
    assert await hand.verbs.record_sleep(stale, **step, seconds=1) is None
    await hand.verbs.write_progress({(run_id, stale.fence): {"fraction": 1}})
    assert steps(conn, run_id) == []
    assert row_of(conn, run_id)["progress"] is None


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
    assert [row["name"] for row in steps(conn, run.run_id)] == ["sleep", "sleep#2"]


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
            await until(lambda: steps(conn, run.run_id))
        assert await run.acancel()
        await until_heard(heard, "cancelling", run_id=run.run_id)
        go.set()
        with pytest.raises(RunCancelled):
            await run.aresult(timeout=10)


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
