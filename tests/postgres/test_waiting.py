"""Waiting for runs: all or any of them, how long, by notification and by polling, and with how few statements."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest
from support.database import Conn
from support.hands import Hand, failed, hire, submit
from support.until import Heard, until, until_heard

from pgrun import PostgresDb, RunNotFound, RunStatus, SchemaMismatch, Settings, UsageError, WaitTimeout
from pgrun.db._runtime import Runtime

NEVER = 3600.0


@pytest.fixture
async def patient(dsn: str, heard: Heard) -> AsyncIterator[PostgresDb]:
    """Never polls, and listens: what it learns, it was told."""
    settings = Settings(poll_interval=NEVER, poll_interval_without_listen=NEVER)
    async with PostgresDb(dsn, worker="external", settings=settings) as db:
        await db.await_runs([])
        await until_heard(heard, "listening")
        yield db


async def wait(db: PostgresDb, into: list[Any], run_ids: list[str], mode: Any = "all") -> None:
    into.append(await db.await_runs(run_ids, mode=mode))


async def waiting(db: PostgresDb, many: int) -> None:
    """Returns when so many runs are waited for."""
    connected = await db.connected()
    await until(lambda: len(connected.waiting._waiters) == many)


def end_unheard(conn: Conn, *run_ids: str) -> None:
    """Ends runs as if their notification had been lost."""
    conn.execute(
        "update pgrun.jobs set status = 'completed', output = '1', finished_at = now() where run_id = any (%s::uuid[])",
        [[*run_ids]],
    )


async def test_all_come_back_in_the_order_asked_for_however_they_ended(db: PostgresDb) -> None:
    run_ids = [await submit(db) for _ in range(3)]
    hand = await hire(db)
    first, second, third = await hand.claim()
    async with anyio.create_task_group() as tasks:
        got: list[Any] = []
        tasks.start_soon(wait, db, got, run_ids[::-1])
        await waiting(db, 3)
        await hand.complete(first)
        await hand.verbs.finish([failed(second)])
        await waiting(db, 1)
        assert not got
        await hand.verbs.cancel(third.run_id)
        await hand.verbs.release([(third.run_id, third.fence)])
    (outputs,) = got
    assert [output.run_id for output in outputs] == run_ids[::-1]
    assert [output.status for output in outputs] == [RunStatus.cancelled, RunStatus.error, RunStatus.completed]
    assert outputs[2].content == "done"
    assert str(outputs[1].error) == "ToolFailed: broke"


async def test_any_comes_back_with_the_first(db: PostgresDb) -> None:
    run_ids = [await submit(db, priority=n) for n in range(3)]
    hand = await hire(db)
    async with anyio.create_task_group() as tasks:
        got: list[Any] = []
        tasks.start_soon(wait, db, got, run_ids[::-1], "any")
        await waiting(db, 3)
        await hand.complete(await hand.claim_one())
    assert [output.run_id for output in got[0]] == run_ids[:1]


async def test_runs_that_have_ended_before_are_there_at_once(db: PostgresDb, conn: Conn) -> None:
    run_ids = [await submit(db) for _ in range(3)]
    end_unheard(conn, *run_ids)
    assert len(await db.await_runs(run_ids)) == 3
    assert len(await db.await_runs(run_ids, timeout=0)) == 3
    assert len(await db.await_runs(run_ids, mode="any", timeout=0)) == 3
    assert (await db.wait_for(run_ids[0], None))["status"] == "completed"


@pytest.mark.parametrize("timeout", [None, 0])
async def test_nothing_is_waited_for_when_nothing_is_asked_for(db: PostgresDb, timeout: float | None) -> None:
    assert await db.await_runs([], timeout=timeout) == []
    assert await db.await_runs([], timeout=timeout, mode="any") == []


@pytest.mark.parametrize("timeout", [None, 0])
async def test_an_id_may_be_given_twice_and_in_any_spelling(db: PostgresDb, conn: Conn, timeout: float | None) -> None:
    run_id = await submit(db)
    with pytest.raises(WaitTimeout):
        await db.await_runs([run_id, run_id], timeout=0)
    end_unheard(conn, run_id)
    spellings: list[Any] = [run_id, run_id.upper(), UUID(run_id), run_id.replace("-", "")]
    assert [output.run_id for output in await db.await_runs(spellings, timeout=timeout)] == [run_id] * 4


@pytest.mark.parametrize("timeout", [None, 0, 5])
@pytest.mark.parametrize("mode", ["all", "any"])
async def test_an_unknown_run_is_not_found(db: PostgresDb, timeout: float | None, mode: Any) -> None:
    missing, there = str(uuid4()), await submit(db)
    with pytest.raises(RunNotFound, match=f"no run {missing} exists") as caught:
        await db.await_runs([there, missing], timeout=timeout, mode=mode)
    assert caught.value.run_id == missing
    with pytest.raises(RunNotFound):
        await db.wait_for(missing, timeout)


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan")])
async def test_a_timeout_that_cannot_be_is_refused(db: PostgresDb, timeout: float) -> None:
    run_id = await submit(db)
    with pytest.raises(UsageError, match="seconds to wait, 0 or more"):
        await db.await_runs([run_id], timeout=timeout)
    with pytest.raises(UsageError, match="seconds to wait, 0 or more"):
        await db.wait_for(run_id, timeout)


async def test_what_is_no_id_and_no_mode_is_refused(db: PostgresDb) -> None:
    with pytest.raises(UsageError, match="'x' is not a UUID"):
        await db.await_runs(["x"])
    with pytest.raises(UsageError, match='choose "all" or "any"'):
        await db.await_runs([], mode="some")  # type: ignore[call-overload]


async def test_a_timeout_says_what_the_run_waits_for(db: PostgresDb) -> None:
    first, second = await submit(db, session_id="s"), await submit(db, session_id="s")
    hand = await hire(db)
    with pytest.raises(WaitTimeout, match=f"run {first} is still pending after 0 s$") as caught:
        await db.wait_for(first, 0)
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.run_id, caught.value.run.status) == (first, RunStatus.pending)
    with pytest.raises(WaitTimeout, match=rf"run {second} is still pending after 0\.01 s \(held: session\)$"):
        await db.wait_for(second, 0.01)
    claimed = await hand.claim_one()
    with pytest.raises(WaitTimeout, match=f"run {first} is still running after 0 s$"):
        await db.wait_for(first, 0)
    await hand.verbs.retry(claimed, delay=60, error={"type": "ModelUnavailable", "message": "busy"}, metrics={})
    with pytest.raises(WaitTimeout, match=f"run {first} is still pending after 0 s; its last error: busy$"):
        await db.wait_for(first, 0)


async def test_a_timeout_names_the_first_run_that_is_late(db: PostgresDb, conn: Conn) -> None:
    run_ids = [await submit(db) for _ in range(3)]
    end_unheard(conn, run_ids[0])
    with pytest.raises(WaitTimeout, match=run_ids[1]):
        await db.await_runs(run_ids, timeout=0)
    assert [output.run_id for output in await db.await_runs(run_ids, timeout=0, mode="any")] == run_ids[:1]


async def test_a_notification_wakes_whoever_waits(patient: PostgresDb) -> None:
    await submit(patient)
    hand = await hire(patient)
    claimed = await hand.claim_one()
    async with anyio.create_task_group() as tasks:
        got: list[Any] = []
        for _ in range(3):
            tasks.start_soon(wait, patient, got, [claimed.run_id])
        await waiting(patient, 1)
        await hand.complete(claimed)
    assert [outputs[0].content for outputs in got] == ["done"] * 3


async def test_a_cancel_wakes_too(patient: PostgresDb) -> None:
    run_id = await submit(patient)
    async with anyio.create_task_group() as tasks:
        got: list[Any] = []
        tasks.start_soon(wait, patient, got, [run_id])
        await waiting(patient, 1)
        await (await patient.connected()).verbs.cancel(run_id)
    assert got[0][0].status is RunStatus.cancelled


async def test_a_lost_notification_is_made_good_by_polling(dsn: str, conn: Conn) -> None:
    settings = Settings(poll_interval=0.1, poll_interval_without_listen=0.1)
    async with PostgresDb(dsn, worker="external", settings=settings) as db:
        run_id = await submit(db)
        async with anyio.create_task_group() as tasks:
            got: list[Any] = []
            tasks.start_soon(wait, db, got, [run_id])
            await waiting(db, 1)
            end_unheard(conn, run_id)
        assert got[0][0].content == 1


async def test_a_lost_notification_is_made_good_also_where_others_come_and_go_all_the_time(
    dsn: str, conn: Conn, heard: Heard
) -> None:
    settings = Settings(poll_interval=0.2, poll_interval_without_listen=0.2)
    async with PostgresDb(dsn, worker="external", settings=settings) as db:
        forgotten, ended = await submit(db), await submit(db)
        end_unheard(conn, ended)
        async with anyio.create_task_group() as tasks:
            got: list[Any] = []
            tasks.start_soon(wait, db, got, [forgotten])
            await until_heard(heard, "listening")
            await db.await_runs([ended])  # what that led to is over
            end_unheard(conn, forgotten)
            with anyio.fail_after(10):
                while not got:
                    await db.await_runs([ended])
        assert got[0][0].run_id == forgotten


async def test_many_callers_share_their_looks(patient: PostgresDb, looks: list[int]) -> None:
    run_ids = [await submit(patient) for _ in range(150)]
    hand = await hire(patient)
    claimed = await hand.claim(150)
    async with anyio.create_task_group() as tasks:
        got: list[Any] = []
        for run_id in run_ids:
            tasks.start_soon(wait, patient, got, [run_id])
        await waiting(patient, 150)
        await until(lambda: sum(looks) >= 150)
        at_first = len(looks)
        await hand.complete(*claimed)
    assert len(got) == 150
    assert at_first <= 3  # all of them began in the same turn of the loop
    assert looks[at_first:] == [150]  # and ended in one notification


async def test_a_thousand_runs_are_looked_at_in_one_statement(db: PostgresDb, conn: Conn, looks: list[int]) -> None:
    conn.execute("insert into pgrun.jobs (name) select 'noop' from generate_series(1, 2500)")
    run_ids = [str(row["run_id"]) for row in conn.execute("select run_id from pgrun.jobs").fetchall()]
    end_unheard(conn, *run_ids)
    outputs = await db.await_runs(run_ids)
    assert [output.run_id for output in outputs] == run_ids
    assert sorted(looks) == [500, 1000, 1000]


async def test_a_caller_that_gives_up_is_forgotten(patient: PostgresDb, looks: list[int]) -> None:
    run_ids = [await submit(patient) for _ in range(2)]
    with anyio.move_on_after(0.05) as scope:
        await patient.await_runs(run_ids)
    assert scope.cancelled_caught
    with pytest.raises(WaitTimeout):
        await patient.await_runs(run_ids, timeout=0.01)
    await waiting(patient, 0)
    looks.clear()
    hand = await hire(patient)
    await hand.complete(*await hand.claim())
    assert len(await patient.await_runs(run_ids)) == 2
    assert looks == [2]  # what was heard of them before led to no look


async def test_callers_hear_of_a_database_that_cannot_be_asked_and_can_ask_again(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    conn.execute("alter table pgrun.jobs rename to gone")
    with pytest.raises(SchemaMismatch, match="pgrun migrate"):
        await db.wait_for(run_id, None)
    conn.execute("alter table pgrun.gone rename to jobs")
    end_unheard(conn, run_id)
    assert (await db.wait_for(run_id, None))["status"] == "completed"


REQUIREMENT: dict[str, Any] = {"kind": "confirmation", "step": 2, "call_id": "c", "name": "refund", "arguments": {}}


async def pause(hand: Hand) -> str:
    claimed = await hand.claim_one()
    await hand.verbs.pause(claimed, [REQUIREMENT], holds_session=True, metrics=None, tools=None)
    return claimed.run_id


async def wait_for(db: PostgresDb, into: list[str], run_id: str, *, or_paused: bool) -> None:
    into.append((await db.wait_for(run_id, 10, or_paused=or_paused))["status"])


async def test_of_a_pause_is_told_who_asked_for_that(patient: PostgresDb) -> None:
    run_id = await submit(patient)
    hand = await hire(patient)
    settled: list[str] = []
    async with anyio.create_task_group() as tasks:
        for or_paused in (True, False, True):
            tasks.start_soon(partial(wait_for, patient, settled, run_id, or_paused=or_paused))
        await waiting(patient, 1)
        assert await pause(hand) == run_id
        await until(lambda: settled == ["paused", "paused"])
        await hand.verbs.approve(run_id, {})
        await hand.complete(await hand.claim_one())
    assert settled == ["paused", "paused", "completed"]


async def test_who_comes_while_the_database_looks_is_not_told_of_a_pause_that_is_over(
    patient: PostgresDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await submit(patient)
    hand = await hire(patient)
    await pause(hand)
    looked, may_tell = anyio.Event(), anyio.Event()
    fetch = Runtime.fetch

    async def slow(self: Runtime, name: str, params: Any = None) -> Any:
        rows = await fetch(self, name, params)
        if name == "look_at_runs" and not looked.is_set():
            looked.set()
            await may_tell.wait()
        return rows

    monkeypatch.setattr(Runtime, "fetch", slow)
    early: list[str] = []
    late: list[str] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(wait_for, patient, early, run_id, or_paused=True))
        await looked.wait()
        await hand.verbs.approve(run_id, {})
        tasks.start_soon(partial(wait_for, patient, late, run_id, or_paused=True))
        connected = await patient.connected()
        await until(lambda: len(connected.waiting._waiters[run_id]) == 2)
        may_tell.set()
        await until(lambda: early == ["paused"])
        await hand.complete(await hand.claim_one())
    assert late == ["completed"]
