"""Steps of a task: each is taken once, whatever becomes of the attempts, and later attempts are given its result."""

from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from support.database import Conn
from support.hands import hire, lose, submit
from support.rows import row_of, steps_of
from support.settings import SOON

from pgrun import OutputInvalid, PostgresDb, RunFailed, SyncTaskContext, TaskContext, Worker


@dataclass
class Receipt:
    number: int
    items: tuple[str, ...]


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
        (row["step"], row["kind"], row["name"], row["attempt"], row["data"]) for row in steps_of(conn, run.run_id)
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
    assert steps_of(conn, run.run_id) == []


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
    assert steps_of(conn, run_id) == []
    assert row_of(conn, run_id)["progress"] is None
