"""cancel_run.sql and pgrun.cancel: at once where nobody works on the run, by its worker where one does."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import dict_row
from support.blocking import rival
from support.database import Conn
from support.ear import Ear
from support.hands import Hand, cancelled, completed, hire, lose, submit
from support.rows import row_of
from support.tables import claim, one, perform, status
from support.tables import finish as finish_run

from pgrun import PostgresDb, RunNotFound


async def test_a_pending_run_is_cancelled_at_once(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    ear.heard()
    assert await hand.verbs.cancel(run_id) == "cancelled"
    row = row_of(conn, run_id)
    assert row["status"] == "cancelled"
    assert row["finished_at"] == row["cancel_requested_at"] is not None
    assert ear.heard() == [("done", run_id)]
    assert await hand.claim() == []


async def test_a_held_run_is_cancelled_at_once(db: PostgresDb, conn: Conn) -> None:
    first, second, third = [await submit(db, session_id="s") for _ in range(3)]
    assert await (await hire(db)).verbs.cancel(second) == "cancelled"
    assert [row_of(conn, run_id)["held"] for run_id in (first, second, third)] == [None, None, "session"]


async def test_a_paused_run_is_cancelled_at_once(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    await hand.claim_one()
    conn.execute("update pgrun.jobs set status = 'paused'")
    assert await hand.verbs.cancel(run_id) == "cancelled"
    assert status(conn, run_id) == "cancelled"


async def test_a_run_in_the_hands_of_a_live_worker_is_left_to_it_and_the_worker_is_told(
    db: PostgresDb, conn: Conn, ear: Ear
) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    claimed = await hand.claim_one()
    ear.heard()
    assert await hand.verbs.cancel(run_id) == "cancelling"
    row = row_of(conn, run_id)
    assert (row["status"], row["finished_at"]) == ("running", None)
    assert row["cancel_requested_at"] is not None
    assert ear.heard() == [("cancel", run_id)]
    (beat,) = perform(conn, "beat_worker", worker_id=hand.worker_id, draining=False, blocked=0)
    assert [str(told) for told in beat["cancels"]] == [run_id]
    assert await hand.verbs.finish([cancelled(claimed)]) == {run_id}


async def test_asking_twice_keeps_the_first_moment(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    await hand.claim_one()
    await hand.verbs.cancel(run_id)
    asked = row_of(conn, run_id)["cancel_requested_at"]
    assert await hand.verbs.cancel(run_id) == "cancelling"
    assert row_of(conn, run_id)["cancel_requested_at"] == asked


async def test_a_worker_may_still_complete_what_it_was_asked_to_cancel(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    claimed = await hand.claim_one()
    await hand.verbs.cancel(run_id)
    assert await hand.complete(claimed) == {run_id}
    assert status(conn, run_id) == "completed"


@pytest.mark.parametrize("left", ["lost", "stopped", "unknown"])
async def test_a_run_in_the_hands_of_a_dead_worker_is_cancelled_at_once(
    db: PostgresDb, conn: Conn, ear: Ear, left: str
) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    claimed = await hand.claim_one()
    match left:
        case "lost":
            lose(conn, hand)
        case "stopped":
            conn.execute("update pgrun.workers set stopped_at = now()")
        case "unknown":
            conn.execute("delete from pgrun.workers")
    ear.heard()
    assert await hand.verbs.cancel(run_id) == "cancelled"
    assert status(conn, run_id) == "cancelled"
    assert ear.heard() == [("done", run_id)]
    assert await hand.verbs.finish([completed(claimed)]) == set()


@pytest.mark.parametrize("ended", ["completed", "error", "cancelled"])
async def test_a_run_that_has_ended_keeps_its_status(db: PostgresDb, conn: Conn, ear: Ear, ended: str) -> None:
    run_id = await submit(db)
    conn.execute("update pgrun.jobs set status = %s, finished_at = now()", [ended])
    before = row_of(conn, run_id)
    ear.heard()
    assert await (await hire(db)).verbs.cancel(run_id) == ended
    assert row_of(conn, run_id) == before
    assert ear.heard() == []


async def test_an_unknown_run_is_not_found(db: PostgresDb) -> None:
    run_id = str(uuid4())
    with pytest.raises(RunNotFound, match=run_id) as caught:
        await (await hire(db)).verbs.cancel(run_id)
    assert caught.value.run_id == run_id


async def test_a_cancel_that_waits_for_a_claim_leaves_the_run_to_the_worker(
    db: PostgresDb, conn: Conn, dsn: str
) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    with rival(dsn) as session:
        with conn.transaction():
            claim(conn, hand.worker_id)
            cancel = session.perform("cancel_run", run_id=run_id)
            session.until_blocked_by(conn)
        assert cancel.result() == [{"state": "cancelling"}]
    assert status(conn, run_id) == "running"


@pytest.mark.slow
async def test_cancel_against_finish_always_has_exactly_one_outcome(db: PostgresDb, conn: Conn, dsn: str) -> None:
    """Also when the lease has just run out, and the cancel does not leave the run to its worker."""
    hand, lost = await hire(db), await hire(db)
    rounds = 100
    seen: Counter[tuple[str, str]] = Counter()
    for number in range(rounds):
        owner = hand if number % 2 else lost
        run_id = await submit(db)
        claimed = await owner.claim_one()
        if owner is lost:
            conn.execute("update pgrun.workers set lease_until = now() where worker_id = %s", [lost.worker_id])
        accepted, answer = race(dsn, owner, claimed.run_id, claimed.fence)
        row = row_of(conn, run_id)
        seen[row["status"], answer] += 1
        assert accepted == (row["status"] == "completed")
        assert (row["output"] is not None) == accepted
        if owner is lost:
            assert row["status"] in ("completed", "cancelled")
            assert answer == row["status"]
        else:
            assert row["status"] == "completed"
            assert answer in ("completed", "cancelling")
    assert sum(seen.values()) == rounds
    assert one(conn, "select count(*) from pgrun.jobs where finished_at is null") == 0


def race(dsn: str, owner: Hand, run_id: str, fence: int) -> tuple[bool, str]:
    """Finishes and cancels a run at the same time; whether the finish was accepted, and what the cancel answered."""
    start = Barrier(2)

    def finish() -> bool:
        with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as own:
            start.wait()
            return finish_run(own, run_id, fence)

    def cancel() -> str:
        with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as own:
            start.wait()
            return str(perform(own, "cancel_run", run_id=run_id)[0]["state"])

    with ThreadPoolExecutor(2) as threads:
        finished, answered = threads.submit(finish), threads.submit(cancel)
        return finished.result(), answered.result()
