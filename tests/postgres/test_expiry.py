"""Limits of time: what nobody starts in time expires, what has not ended in time fails, and an attempt may take only so long."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from support.database import Conn
from support.ear import Ear
from support.hands import Hand, hire
from support.rows import clock, row_of
from support.until import until

from pgrun import PostgresDb, RetryPolicy, RunCancelled, RunExpired, RunFailed, Task, Worker
from pgrun.errors import AttemptTimeout, DeadlineExceeded

SOON = RetryPolicy(base_delay=0.01, max_attempts=2)


@pytest.fixture
def noop(db: PostgresDb) -> Task[[], None]:
    @db.task(retry=SOON)
    async def noop() -> None: ...

    return noop


@pytest.fixture
async def hand(db: PostgresDb) -> Hand:
    return await hire(db, names=["noop"])


def let_pass(conn: Conn, column: str) -> None:
    """As if the time had come."""
    conn.execute(f"update pgrun.jobs set {column} = now() - interval '1 ms'".encode())


async def test_seconds_count_from_when_it_is_due_and_moments_are_moments(conn: Conn, noop: Task[[], None]) -> None:
    run = await noop.options(delay=60, expires=10, deadline=100.5, timeout=3).asubmit()
    row = row_of(conn, run.run_id)
    assert row["due_at"] - row["created_at"] == timedelta(seconds=60)
    assert row["expires_at"] - row["due_at"] == timedelta(seconds=10)
    assert row["deadline_at"] - row["due_at"] == timedelta(seconds=100.5)
    assert row["timeout"] == 3
    moments = [datetime(2050, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
    run = await noop.options(due_at=moments[0], expires=moments[1], deadline=moments[2]).asubmit()
    row = row_of(conn, run.run_id)
    assert [row["due_at"], row["expires_at"], row["deadline_at"]] == moments


async def test_what_nobody_has_started_in_time_is_cancelled_and_its_waiters_wake(
    conn: Conn, noop: Task[[], None], hand: Hand, ear: Ear
) -> None:
    run, other = await noop.options(expires=60).asubmit(), await noop.options(expires=60).asubmit()
    assert (await hand.claim_one()).run_id == run.run_id
    let_pass(conn, "expires_at")
    assert await hand.claim() == await hand.claim_woken() == []
    ear.heard()
    assert await hand.verbs.expire() == (1, None)
    assert ear.heard() == [("done", other.run_id)]
    with pytest.raises(RunExpired, match=r"was cancelled: nobody had started it by 20\d\d-.* UTC") as caught:
        await other.aresult(timeout=10)
    assert isinstance(caught.value, RunCancelled)
    assert [row_of(conn, each.run_id)["status"] for each in (run, other)] == ["running", "cancelled"]


async def test_whoever_was_started_once_does_not_expire(conn: Conn, noop: Task[[], None], hand: Hand) -> None:
    await noop.options(expires=60).asubmit()
    claimed = await hand.claim_one()
    await hand.verbs.retry(claimed, delay=0, error={"type": "ValueError"}, metrics=None)
    let_pass(conn, "expires_at")
    assert await hand.verbs.expire() == (0, None)
    assert (await hand.claim_one()).attempt == 2


async def test_whom_a_worker_did_not_know_has_not_been_started(
    db: PostgresDb, conn: Conn, noop: Task[[], None], hand: Hand
) -> None:
    run = await noop.options(expires=60).asubmit()
    claimed = await hand.claim_one()
    await hand.verbs.release([(claimed.run_id, claimed.fence)], error={"type": "UnknownName", "message": "who?"})
    let_pass(conn, "expires_at")
    assert await hand.claim() == []
    assert (await hand.verbs.expire())[0] == 1
    assert row_of(conn, run.run_id)["status"] == "cancelled"


async def test_a_run_of_a_session_that_expires_lets_the_next_one_start(
    conn: Conn, noop: Task[[], None], hand: Hand
) -> None:
    first, second = [await noop.options(session_id="s", expires=60 * n).asubmit() for n in (1, 2)]
    third = await noop.options(session_id="s").asubmit()
    conn.execute("update pgrun.jobs set expires_at = now() where session_seq in (1, 2)")
    assert (await hand.verbs.expire())[0] == 2
    assert [row_of(conn, run.run_id)["status"] for run in (first, second)] == ["cancelled", "cancelled"]
    assert (await hand.claim_one()).run_id == third.run_id


async def test_what_waits_at_its_deadline_fails_with_its_last_error(
    conn: Conn, noop: Task[[], None], hand: Hand
) -> None:
    run = await noop.options(deadline=60).asubmit()
    claimed = await hand.claim_one()
    assert claimed.time_left is not None
    assert 50 < claimed.time_left <= 60
    error = {"type": "ValueError", "message": "no such city"}
    await hand.verbs.retry(claimed, delay=30, error=error, metrics=None)
    let_pass(conn, "deadline_at")
    assert await hand.verbs.expire() == (1, None)
    with pytest.raises(RunFailed, match=r"not ended by its deadline, .* \(its last error: no such city\)") as caught:
        await run.aresult(timeout=10)
    assert isinstance(caught.value.__cause__, DeadlineExceeded)
    assert await hand.verbs.retry_ended(run.run_id) == "pending"  # a person may give it all the time again
    assert (await hand.claim_one()).time_left is None


async def test_the_next_look_is_when_the_next_one_expires(conn: Conn, noop: Task[[], None], hand: Hand) -> None:
    await noop.options(expires=60, deadline=30).asubmit()
    await noop.options(expires=90).asubmit()
    ended, next_look = await hand.verbs.expire()
    assert ended == 0
    assert next_look is not None
    assert 25 < next_look <= 30


async def test_a_worker_without_a_free_slot_ends_them_in_time(db: PostgresDb, conn: Conn) -> None:
    gate = anyio.Event()

    @db.task
    async def hold() -> None:
        await gate.wait()

    async with Worker(db, concurrency=1):
        first = await hold.asubmit()
        late = await hold.options(expires=0.2).asubmit()
        with pytest.raises(RunExpired):
            await late.aresult(timeout=10)
        gate.set()
        await first.aresult(timeout=10)
    row = row_of(conn, late.run_id)
    assert row["started_at"] is None
    assert row["finished_at"] >= row["expires_at"]


async def test_where_there_is_no_worker_whoever_waits_ends_them(noop: Task[[], None]) -> None:
    run = await noop.options(expires=0.1).asubmit()
    with pytest.raises(RunExpired):
        await run.aresult(timeout=10)


async def test_an_attempt_that_takes_too_long_is_stopped_and_the_next_one_follows(db: PostgresDb, conn: Conn) -> None:
    attempts: list[str] = []

    @db.task(retry=SOON, timeout=60)
    async def slow() -> str:
        attempts.append("began")
        try:
            if len(attempts) == 1:
                await anyio.sleep(60)
        except anyio.get_cancelled_exc_class():
            attempts.append("stopped")
            raise
        return "done"

    async with Worker(db):
        run = await slow.options(timeout=0.05).asubmit()
        assert await run.aresult(timeout=10) == "done"
        assert attempts == ["began", "stopped", "began"]
        run = await slow.options(timeout=0.05, max_attempts=1).asubmit()
        await run.aresult(timeout=10)
        attempts.clear()
        run = await slow.options(timeout=0.05, max_attempts=1).asubmit()
        with pytest.raises(RunFailed, match=r"AttemptTimeout: the attempt was stopped after 0.05 s") as caught:
            await run.aresult(timeout=10)
        assert isinstance(caught.value.__cause__, AttemptTimeout)


async def test_the_thread_of_a_plain_function_is_left_to_itself(db: PostgresDb) -> None:
    gate, ended = threading.Event(), threading.Event()

    @db.task(timeout=0.05, max_attempts=1)
    def hang() -> None:
        gate.wait(10)
        ended.set()

    async with Worker(db, concurrency=1) as worker:
        run = await hang.asubmit()
        with pytest.raises(RunFailed, match="AttemptTimeout"):
            await run.aresult(timeout=5)
        await until(lambda: worker.running == 0)  # its slot is free
        gate.set()
        await until(ended.is_set)


async def test_a_deadline_stops_what_runs_and_leaves_no_time_for_another_attempt(db: PostgresDb, conn: Conn) -> None:
    tried: list[int] = []

    @db.task(retry=RetryPolicy(base_delay=5, jitter=0))
    async def work(broken: bool) -> None:
        tried.append(1)
        if broken:
            raise ValueError("broken")
        await anyio.sleep(60)

    async with Worker(db):
        run = await work.options(deadline=2).asubmit(False)
        with pytest.raises(RunFailed, match="DeadlineExceeded: the run had not ended by its deadline"):
            await run.aresult(timeout=10)
        run = await work.options(deadline=4).asubmit(True)
        with pytest.raises(RunFailed, match="ValueError: broken"):  # at once, and not at the deadline
            await run.aresult(timeout=3)
    assert len(tried) == 2


async def test_what_is_claimed_after_its_deadline_is_not_begun(db: PostgresDb, conn: Conn, hand: Hand) -> None:
    begun: list[int] = []

    @db.task
    def work() -> None:
        begun.append(1)

    run = await work.options(deadline=clock(conn) - timedelta(seconds=1)).asubmit()
    async with Worker(db):
        with pytest.raises(RunFailed, match="DeadlineExceeded"):
            await run.aresult(timeout=10)
    assert begun == []


async def test_what_was_said_with_a_run_is_found_again(conn: Conn, noop: Task[[], None], hand: Hand) -> None:
    one = await noop.options(tags=["import", "night", "import"], metadata={"order": 7, "who": "ada"}).asubmit()
    two = await noop.options(tags=["import"], metadata={"order": "7"}).asubmit()
    await noop.options(metadata={"order": 8}).asubmit()
    assert row_of(conn, one.run_id)["tags"] == ["import", "night"]

    async def found(**filters: Any) -> list[str]:
        return [str(row["run_id"]) for row in await hand.verbs.list_runs(**filters)]

    assert await found(tags=["import"]) == [two.run_id, one.run_id]
    assert await found(tags=["night", "import"]) == [one.run_id]
    assert await found(metadata={"order": "7"}) == [two.run_id, one.run_id]
    assert await found(metadata={"order": "7", "who": "ada"}) == [one.run_id]
    assert await found(tags=["import"], metadata={"order": "8"}) == []
