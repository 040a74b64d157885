"""The history of attempts: what went wrong has a row, written with whatever follows from it; what went well costs nothing."""

import threading
from typing import Any

import anyio
import pytest
from support.database import Conn
from support.hands import Hand, cancelled, completed, failed, hire, lose, submit
from support.rows import Row, row_of

from pgrun import PostgresDb, RetryPolicy, RunFailed, Worker

SOON = RetryPolicy(base_delay=0.01, jitter=0, max_attempts=3)
ERROR = {"type": "ValueError", "message": "no", "attempt": 1, "traceback": "Traceback: here"}


@pytest.fixture
async def hand(db: PostgresDb) -> Hand:
    return await hire(db)


def history(conn: Conn, run_id: str) -> list[Row]:
    return conn.execute("select * from pgrun.attempts where run_id = %s order by fence", [run_id]).fetchall()


async def test_each_failed_attempt_of_a_task_is_told_with_its_traceback(db: PostgresDb, conn: Conn) -> None:
    @db.task(retry=SOON)
    async def fail(number: int) -> None:
        raise LookupError(f"no {number}")

    async with Worker(db) as worker:
        run = await fail.asubmit(7)
        with pytest.raises(RunFailed) as caught:
            await run.aresult(timeout=10)
        worker_id = worker.worker_id
    rows = history(conn, run.run_id)
    assert [(row["attempt"], row["outcome"], row["error_type"], row["message"]) for row in rows] == [
        (attempt, "failed", "LookupError", "no 7") for attempt in (1, 2, 3)
    ]
    assert {str(row["worker_id"]) for row in rows} == {worker_id}
    assert [row["retry_delay"] for row in rows] == [pytest.approx(0.01), pytest.approx(0.02), None]
    for row in rows:
        assert 'raise LookupError(f"no {number}")' in row["traceback"]
        assert row["duration"] == (row["finished_at"] - row["started_at"]).total_seconds()
    assert caught.value.details["traceback"] == rows[-1]["traceback"]


async def test_a_run_that_succeeds_or_is_cancelled_or_given_back_has_no_history(
    db: PostgresDb, conn: Conn, hand: Hand
) -> None:
    for _ in range(4):
        await submit(db)
    good, unwanted, given_back, waiting = await hand.claim()
    await hand.verbs.finish([completed(good), cancelled(unwanted)])
    await hand.verbs.release([(given_back.run_id, given_back.fence)], error=ERROR)
    await hand.verbs.pause(waiting, [], holds_session=True, metrics=None, tools=None)
    assert conn.execute("select * from pgrun.attempts").fetchall() == []


async def test_a_retry_an_end_and_a_rescue_write_it(db: PostgresDb, conn: Conn, hand: Hand) -> None:
    run_id = await submit(db, max_attempts=3)
    await hand.verbs.retry(await hand.claim_one(), delay=0, error=ERROR, metrics=None)
    await hand.claim_one()
    lose(conn, hand)
    other = await hire(db)
    await other.verbs.rescue(other.worker_id)
    await other.verbs.finish([failed(await other.claim_one())])
    rows = history(conn, run_id)
    assert [(row["fence"], row["attempt"], row["outcome"]) for row in rows] == [
        *((1, 1, "failed"), (2, 2, "lost"), (3, 3, "failed"))
    ]
    assert [row["retry_delay"] for row in rows] == [0, 0, None]
    assert rows[0]["traceback"] == ERROR["traceback"]
    assert str(rows[1]["worker_id"]) == hand.worker_id


async def test_a_stale_or_repeated_write_adds_nothing(db: PostgresDb, conn: Conn, hand: Hand) -> None:
    run_id = await submit(db)
    stale = await hand.claim_one()
    for _ in range(2):
        await hand.verbs.retry(stale, delay=0, error=ERROR, metrics=None)
    current = await hand.claim_one()
    await hand.verbs.finish([failed(stale)])
    for _ in range(2):
        await hand.verbs.finish([failed(current)])
    assert [row["fence"] for row in history(conn, run_id)] == [1, 2]


async def test_a_retry_that_meets_a_cancel_tells_both(db: PostgresDb, conn: Conn, hand: Hand) -> None:
    run_id = await submit(db)
    claimed = await hand.claim_one()
    await hand.verbs.cancel(run_id)
    assert await hand.verbs.retry(claimed, delay=5, error=ERROR, metrics=None) == "cancelled"
    (row,) = history(conn, run_id)
    assert (row["outcome"], row["retry_delay"]) == ("failed", None)


async def test_it_is_kept_by_a_persons_retry_and_goes_with_its_run(db: PostgresDb, conn: Conn, hand: Hand) -> None:
    run_id = await submit(db)
    for _ in range(2):
        await hand.verbs.finish([failed(await hand.claim_one())])
        await hand.verbs.retry_ended(run_id)
    assert [(row["fence"], row["attempt"]) for row in history(conn, run_id)] == [(1, 1), (2, 1)]
    assert [row["message"] for row in await hand.verbs.attempts(run_id)] == ["broke", "broke"]
    conn.execute("delete from pgrun.jobs")
    assert history(conn, run_id) == []


async def test_a_reader_of_the_stream_is_not_shown_tracebacks(db: PostgresDb, conn: Conn, hand: Hand) -> None:
    run_id = await submit(db, streams=True)
    await hand.verbs.retry(await hand.claim_one(), delay=0, error=ERROR, metrics=None)
    told = conn.execute("select data from pgrun.events where kind = 'retried' and run_id = %s", [run_id]).fetchone()
    assert told is not None
    assert told["data"]["error"] == {key: value for key, value in ERROR.items() if key != "traceback"}
    assert row_of(conn, run_id)["error"] == ERROR


@pytest.mark.parametrize("is_async", [True, False])
async def test_an_attempt_that_takes_too_long_is_stopped_and_repeated(
    db: PostgresDb, conn: Conn, *, is_async: bool
) -> None:
    calls: list[Any] = []
    go = threading.Event()

    async def wait() -> str:
        calls.append(1)
        if len(calls) == 1:
            await anyio.sleep(60)
        return "done"

    def wait_here() -> str:
        calls.append(1)
        if len(calls) == 1:
            go.wait(10)  # nothing can stop a thread: it is left to itself
        return "done"

    limited = db.task(name="wait", timeout=0.3, retry=SOON)
    task = limited(wait) if is_async else limited(wait_here)
    async with Worker(db):
        run = await task.asubmit()
        assert await run.aresult(timeout=10) == "done"
        go.set()
    outcomes = [(row["outcome"], row["error_type"]) for row in history(conn, run.run_id)]
    assert outcomes == [("timed_out", "AttemptTimeout")]
    assert len(calls) == 2
