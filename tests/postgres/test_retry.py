"""retry_run.sql: a failed attempt is used up, its error kept, and the run due again."""

import pytest
from support.database import Conn
from support.ear import Ear
from support.hands import hire, submit
from support.rows import row_of
from support.tables import one

from pgrun import PostgresDb
from pgrun.db.records import Claimed
from pgrun.db.verbs import Verbs

ERROR = {"type": "ModelUnavailable", "message": "busy"}


async def retry(verbs: Verbs, claimed: Claimed, *, delay: float = 0.0) -> str | None:
    return await verbs.retry(claimed, delay=delay, error=ERROR, metrics={"total_tokens": 3})


async def test_a_failed_attempt_is_used_up_and_its_error_is_in_the_row(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    assert await retry(hand.verbs, await hand.claim_one()) == "pending"
    row = row_of(conn, run_id)
    assert (row["status"], row["attempt"], row["error"]) == ("pending", 1, ERROR)
    assert (row["metrics"], row["finished_at"]) == ({"total_tokens": 3}, None)
    assert (await hand.claim_one()).attempt == 2


async def test_it_is_due_again_after_the_delay(db: PostgresDb, conn: Conn) -> None:
    await submit(db)
    hand = await hire(db)
    await retry(hand.verbs, await hand.claim_one(), delay=300)
    left = one(conn, "select extract(epoch from due_at - now())::float8 from pgrun.jobs")
    assert left == pytest.approx(300, abs=5)
    assert await hand.claim() == []


async def test_the_fence_still_rises_at_the_next_claim(db: PostgresDb, conn: Conn) -> None:
    await submit(db)
    hand = await hire(db)
    first = await hand.claim_one()
    await retry(hand.verbs, first)
    assert (await hand.claim_one()).fence == first.fence + 1


async def test_a_stale_claim_changes_nothing(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    stale = await hand.claim_one()
    await retry(hand.verbs, stale)
    before = row_of(conn, run_id)
    assert await retry(hand.verbs, stale) is None  # not running any more
    current = await hand.claim_one()
    assert await retry(hand.verbs, stale) is None  # running, but claimed again
    assert await retry(hand.verbs, current._replace(fence=current.fence + 1)) is None
    assert row_of(conn, run_id) == before | {
        name: row_of(conn, run_id)[name] for name in ("status", "attempt", "fence", "started_at")
    }


async def test_a_requested_cancel_is_carried_out_instead(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    claimed = await hand.claim_one()
    assert await hand.verbs.cancel(run_id) == "cancelling"
    ear.heard()
    assert await retry(hand.verbs, claimed) == "cancelled"
    row = row_of(conn, run_id)
    assert (row["status"], row["error"]) == ("cancelled", ERROR)
    assert row["finished_at"] is not None
    assert ear.heard() == [("done", run_id)]


async def test_workers_are_woken(db: PostgresDb, ear: Ear) -> None:
    await submit(db, queue="default")
    hand = await hire(db)
    claimed = await hand.claim_one()
    ear.heard()
    await retry(hand.verbs, claimed)
    assert ear.heard() == [("wake", "default")]
    await retry(hand.verbs, claimed)
    assert ear.heard() == []
