"""release_runs.sql: runs are given back uncounted."""

import pytest
from support.database import Conn
from support.ear import Ear
from support.hands import hire, submit
from support.rows import row_of
from support.tables import one

from pgrun import PostgresDb


async def test_the_attempt_is_returned(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    claimed = await hand.claim_one()
    assert await hand.verbs.release([(run_id, claimed.fence)]) == {run_id}
    row = row_of(conn, run_id)
    assert (row["status"], row["attempt"], row["fence"], row["finished_at"]) == ("pending", 0, 1, None)


async def test_the_fence_still_rises_at_the_next_claim(db: PostgresDb) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    for fence in (1, 2, 3):
        claimed = await hand.claim_one()
        assert (claimed.attempt, claimed.fence) == (1, fence)
        await hand.verbs.release([(run_id, fence)])


async def test_it_is_due_again_after_the_delay(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    await hand.verbs.release([(run_id, (await hand.claim_one()).fence)], delay=300)
    left = one(conn, "select extract(epoch from due_at - now())::float8 from pgrun.jobs")
    assert left == pytest.approx(300, abs=5)


async def test_only_runs_still_held_by_this_fence_are_given_back(db: PostgresDb, conn: Conn) -> None:
    held, reclaimed, ended = [await submit(db, priority=n) for n in range(3)]
    hand = await hire(db)
    pairs = [(run.run_id, run.fence) for run in await hand.claim()]
    conn.execute("update pgrun.jobs set fence = fence + 1 where run_id = %s", [reclaimed])
    conn.execute("update pgrun.jobs set status = 'completed', finished_at = now() where run_id = %s", [ended])
    before = row_of(conn, reclaimed), row_of(conn, ended)
    assert await hand.verbs.release(pairs, error={"message": "no"}) == {held}
    assert (row_of(conn, reclaimed), row_of(conn, ended)) == before
    assert await hand.verbs.release(pairs) == set()


async def test_why_it_waits_is_in_the_row_and_an_earlier_error_is_kept(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    await hand.verbs.release([(run_id, (await hand.claim_one()).fence)], error={"message": "no credit"})
    assert row_of(conn, run_id)["error"] == {"message": "no credit"}
    await hand.verbs.release([(run_id, (await hand.claim_one()).fence)])
    assert row_of(conn, run_id)["error"] == {"message": "no credit"}


async def test_what_it_has_used_is_in_the_row_and_is_kept_where_nothing_is_said(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    await hand.verbs.release([(run_id, (await hand.claim_one()).fence)], metrics={"total_tokens": 15})
    assert row_of(conn, run_id)["metrics"] == {"total_tokens": 15}
    await hand.verbs.release([(run_id, (await hand.claim_one()).fence)])
    assert row_of(conn, run_id)["metrics"] == {"total_tokens": 15}


async def test_a_requested_cancel_is_carried_out(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    cancelled, pending = [await submit(db, priority=n) for n in range(2)]
    hand = await hire(db)
    claimed = await hand.claim()
    await hand.verbs.cancel(cancelled)
    ear.heard()
    await hand.verbs.release([(run.run_id, run.fence) for run in claimed])
    assert (row_of(conn, cancelled)["status"], row_of(conn, pending)["status"]) == ("cancelled", "pending")
    assert row_of(conn, cancelled)["finished_at"] is not None
    assert sorted(ear.heard()) == [("done", cancelled), ("wake", "default")]


async def test_each_queue_is_woken_once(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    hand = await hire(db, queues=["a", "b"])
    conn.execute("insert into pgrun.jobs (name, queue) select 'noop', chr(97 + n % 2) from generate_series(1, 50) n")
    claimed = await hand.claim()
    ear.heard()
    await hand.verbs.release([(run.run_id, run.fence) for run in claimed])
    assert sorted(ear.heard()) == [("wake", "a"), ("wake", "b")]
