"""Waiting for many runs at once: ids and handles mixed, all of them or any, and one by one as they end."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import anyio
import pytest
from support.agents import answering_agent
from support.database import Conn
from support.hands import completed, hire
from support.rows import until_all
from support.settings import FAST
from support.tables import status
from support.until import Heard, until

from pgrun import (
    Agent,
    PostgresDb,
    Run,
    RunCancelled,
    RunNotFound,
    RunOutput,
    RunStatus,
    Task,
    UsageError,
    WaitTimeout,
    Worker,
)
from pgrun.db.records import Claimed
from pgrun.testing import ModelServer


@dataclass(frozen=True)
class Receipt:
    number: int


@pytest.fixture
def buy(db: PostgresDb) -> Task[[int], Receipt]:
    @db.task
    async def buy(number: int) -> Receipt:
        return Receipt(number)

    return buy


async def taken(db: PostgresDb, runs: Sequence[Run[Any]]) -> list[Claimed]:
    """The runs in the hands of a worker, in their order."""
    claimed = {run.run_id: run for run in await (await hire(db, names=["buy"])).claim(len(runs))}
    return [claimed[run.run_id] for run in runs]


async def complete(db: PostgresDb, claimed: Claimed) -> None:
    number = int("".join(filter(str.isdigit, claimed.input)))
    await (await db.connected()).verbs.finish([completed(claimed, {"number": number})])


async def test_handles_give_their_types_and_mere_ids_what_is_stored(db: PostgresDb, buy: Task[[int], Receipt]) -> None:
    runs = await buy.asubmit_many({"number": number} for number in range(3))
    async with Worker(db):
        first, second, third = await db.await_runs([runs[2], runs[0].run_id, runs[1]], timeout=10)
    assert (first.content, second.content, third.content) == (Receipt(2), {"number": 0}, Receipt(1))
    assert [run.content for run in await db.await_runs([runs[0].run_id, runs[0]], timeout=0)] == [Receipt(0)] * 2


async def test_runs_of_agents_and_tasks_are_awaited_together(
    db: PostgresDb, buy: Task[[int], Receipt], models: ModelServer
) -> None:
    models.always("An answer.")
    agent: Agent[str] = answering_agent(db, models)
    async with Worker(db):
        asked = await agent.arun("?", background=True)
        outputs: list[RunOutput[Any]] = await db.await_runs([asked, await buy.asubmit(7)], timeout=10)
        assert [output.content for output in outputs] == ["An answer.", Receipt(7)]
        assert [output.content for output in await db.await_runs(outputs)] == ["An answer.", Receipt(7)]


async def test_runs_come_in_the_order_in_which_they_end(db: PostgresDb, buy: Task[[int], Receipt]) -> None:
    runs = await buy.asubmit_many({"number": number} for number in range(4))
    claimed = await taken(db, runs)
    order = [2, 0, 3, 1]
    await complete(db, claimed[order[0]])
    seen = []
    async for run in db.as_completed([*runs, runs[0].run_id], timeout=10):
        seen.append(run.content)
        if len(seen) < 4:
            await complete(db, claimed[order[len(seen)]])
    assert seen == [Receipt(number) for number in order]


async def test_many_that_end_together_each_come_once(db: PostgresDb, buy: Task[[int], Receipt]) -> None:
    runs = await buy.asubmit_many({"number": number} for number in range(300))
    async with Worker(db, concurrency=100):
        seen = [run.content async for run in db.as_completed(runs, timeout=10)]
    assert len(seen) == 300
    assert {*seen} == {Receipt(number) for number in range(300)}


async def test_as_completed_needs_no_notification(dsn: str, conn: Conn) -> None:
    """It polls, where there is nothing to be heard."""
    async with PostgresDb(dsn, worker="external", settings=FAST, listen_url="postgresql://127.0.0.1:1/none") as db:
        ids = [str(uuid4()) for _ in range(2)]
        for run_id in ids:
            conn.execute("insert into pgrun.jobs (run_id, name) values (%s, 'noop')", [run_id])
        seen: list[str] = []
        conn.execute("select pgrun.cancel(%s)", [ids[1]])
        async for run in db.as_completed(ids, timeout=10):
            seen.append(run.run_id)
            conn.execute("select pgrun.cancel(%s)", [ids[0]])
    assert seen == ids[::-1]


async def test_as_completed_gives_up_in_time_and_says_who_is_late(db: PostgresDb, buy: Task[[int], Receipt]) -> None:
    runs = await buy.asubmit_many({"number": number} for number in range(2))
    claimed = await taken(db, runs)
    await complete(db, claimed[1])
    outputs = aiter(db.as_completed(runs, timeout=0.5))
    assert (await anext(outputs)).content == Receipt(1)
    with pytest.raises(WaitTimeout, match=runs[0].run_id):
        await anext(outputs)
    nobody: list[str] = []
    assert [run.content async for run in db.as_completed(nobody)] == []


async def test_as_completed_of_what_does_not_exist_says_so(db: PostgresDb, buy: Task[[int], Receipt]) -> None:
    run = await buy.asubmit(1)
    with pytest.raises(RunNotFound):
        async for _ in db.as_completed([run, str(uuid4())], timeout=10):
            pass
    wrong: list[Any] = [7, "x"]
    for each in wrong:
        with pytest.raises(UsageError):
            db.as_completed([each])


async def test_whoever_leaves_early_leaves_nothing_behind(db: PostgresDb, buy: Task[[int], Receipt]) -> None:
    runs = await buy.asubmit_many({"number": number} for number in range(2))
    claimed = await taken(db, runs)
    await complete(db, claimed[0])
    outputs = aiter(db.as_completed(runs))
    assert (await anext(outputs)).content == Receipt(0)
    await outputs.aclose()  # type: ignore[attr-defined]
    assert (await db.connected()).waiting._waiters == {}


def test_without_an_event_loop_it_is_the_same(dsn: str) -> None:
    db = PostgresDb(dsn, worker="embedded", settings=FAST)

    @db.task
    def buy(number: int) -> Receipt:
        return Receipt(number)

    try:
        runs = buy.submit_many({"number": number} for number in range(3))
        assert {run.content for run in db.as_completed(runs, timeout=10)} == {Receipt(0), Receipt(1), Receipt(2)}
        assert [run.content for run in db.wait_runs(runs, timeout=10)] == [Receipt(0), Receipt(1), Receipt(2)]
        assert len(db.wait_runs(runs, timeout=10, mode="any")) >= 1
        assert runs[0].progress() is None
        assert not runs[0].cancel()
        assert runs[1].result(timeout=10, cancel_on_abandon=True) == Receipt(1)
    finally:
        db.close()


async def test_a_run_that_nobody_waits_for_any_longer_is_cancelled(
    db: PostgresDb, conn: Conn, buy: Task[[int], Receipt]
) -> None:
    late, left, kept = await buy.asubmit_many({"number": number} for number in range(3))
    with pytest.raises(WaitTimeout):
        await late.aresult(timeout=0.01, cancel_on_abandon=True)
    with anyio.move_on_after(0.05):
        await left.aresult(cancel_on_abandon=True)
    with pytest.raises(WaitTimeout):
        await kept.aresult(timeout=0.01)
    assert [status(conn, run.run_id) for run in (late, left, kept)] == ["cancelled", "cancelled", "pending"]


async def test_a_running_one_is_stopped_by_its_worker(db: PostgresDb, conn: Conn, heard: Heard) -> None:
    stopped = threading.Event()

    @db.task
    async def wait() -> None:
        try:
            await anyio.sleep(60)
        finally:
            stopped.set()

    async with Worker(db):
        run = await wait.asubmit()
        await until_all(conn, "running", [run.run_id])
        with pytest.raises(WaitTimeout):
            await run.aresult(timeout=0.01, cancel_on_abandon=True)
        await until(stopped.is_set)
        with pytest.raises(RunCancelled):
            await run.aresult(timeout=10, cancel_on_abandon=True)


async def test_an_agents_run_is_cancelled_too(db: PostgresDb, models: ModelServer) -> None:
    run = await answering_agent(db, models).arun("?", background=True)
    with pytest.raises(WaitTimeout):
        await run.aresult(timeout=0.01, cancel_on_abandon=True)
    (ended,) = await db.await_runs([run], timeout=10)
    assert ended.status is RunStatus.cancelled
