"""finish_runs.sql: what is written, what a stale worker may not write, and what waiters are told."""

from dataclasses import replace

import pytest
from support.blocking import rival
from support.database import Conn
from support.ear import Ear
from support.hands import cancelled, completed, failed, hire, lose, submit
from support.rows import row_of
from support.tables import finish, one

from pgrun import PostgresDb


async def test_a_completed_run_has_its_output_and_what_it_used(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db, content_type="Facts")
    hand = await hire(db)
    claimed = await hand.claim_one()
    assert await hand.verbs.finish([replace(completed(claimed, {"a": [1, None, "ü"]}), content_type=None)]) == {run_id}
    row = row_of(conn, run_id)
    assert (row["status"], row["output"], row["metrics"]) == ("completed", {"a": [1, None, "ü"]}, {"total_tokens": 7})
    assert row["content_type"] == "Facts"  # nothing else was said
    assert row["error"] is None
    assert row["finished_at"] >= row["started_at"]
    assert str(row["worker_id"]) == hand.worker_id


async def test_the_output_may_be_json_null(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    await hand.verbs.finish([completed(await hand.claim_one(), None)])
    assert one(conn, "select output::text from pgrun.jobs where run_id = %s", run_id) == "null"


async def test_a_failed_run_has_its_error_and_no_output(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    assert await hand.verbs.finish([failed(await hand.claim_one())]) == {run_id}
    row = row_of(conn, run_id)
    assert (row["status"], row["error"]["message"], row["output"]) == ("error", "broke", None)
    assert row["finished_at"] is not None


async def test_a_cancelled_run_has_neither(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    assert await hand.verbs.finish([cancelled(await hand.claim_one())]) == {run_id}
    row = row_of(conn, run_id)
    assert (row["status"], row["error"], row["output"]) == ("cancelled", None, None)
    assert row["finished_at"] is not None


async def test_the_error_of_an_earlier_attempt_is_gone_when_a_run_completes(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    await hand.verbs.retry(await hand.claim_one(), delay=0, error={"message": "broke"}, metrics={})
    await hand.complete(await hand.claim_one())
    assert row_of(conn, run_id)["error"] is None


async def test_an_old_fence_changes_nothing_and_is_not_accepted(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    old, new = await hire(db), await hire(db)
    stale = await old.claim_one()
    lose(conn, old)
    await new.verbs.rescue(new.worker_id)
    current = await new.claim_one()
    before = row_of(conn, run_id)

    assert await old.verbs.finish([completed(stale, "stale")]) == set()
    assert row_of(conn, run_id) == before
    assert await new.verbs.finish([completed(current, "current")]) == {run_id}
    assert await old.verbs.finish([completed(stale, "stale")]) == set()
    assert row_of(conn, run_id)["output"] == "current"


async def test_the_fence_and_not_the_attempt_decides(db: PostgresDb, conn: Conn) -> None:
    """A release gives the attempt back, so the next claim has the same number again."""
    run_id = await submit(db)
    old, new = await hire(db), await hire(db)
    stale = await old.claim_one()
    await old.verbs.release([(run_id, stale.fence)])
    current = await new.claim_one()
    assert (current.attempt, current.fence) == (stale.attempt, stale.fence + 1)
    assert await old.complete(stale) == set()
    assert row_of(conn, run_id)["status"] == "running"


@pytest.mark.parametrize("status", ["pending", "paused", "completed", "error", "cancelled"])
async def test_a_run_that_is_not_running_any_more_is_left_alone(db: PostgresDb, conn: Conn, status: str) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    claimed = await hand.claim_one()
    conn.execute(
        "update pgrun.jobs set status = %s, finished_at = case when %s then now() end",
        [status, status in ("completed", "error", "cancelled")],
    )
    before = row_of(conn, run_id)
    for ending in (completed(claimed), failed(claimed), cancelled(claimed)):
        assert await hand.verbs.finish([ending]) == ({run_id} if ending.status == status else set())
    assert row_of(conn, run_id) == before


async def test_a_repeat_after_a_lost_commit_is_accepted_and_changes_nothing(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    claimed = await hand.claim_one()
    await hand.complete(claimed)
    before = row_of(conn, run_id)
    assert await hand.complete(claimed) == {run_id}
    assert row_of(conn, run_id) == before


async def test_a_repeat_while_the_first_is_still_committing_is_accepted(db: PostgresDb, conn: Conn, dsn: str) -> None:
    await submit(db)
    hand = await hire(db)
    claimed = await hand.claim_one()
    with rival(dsn) as other:
        with conn.transaction():
            assert finish(conn, claimed.run_id, claimed.fence)
            repeated = other.call(finish, claimed.run_id, claimed.fence)
            other.until_blocked_by(conn)
        assert repeated.result()


async def test_one_stale_run_does_not_keep_the_other_199_of_a_batch(db: PostgresDb, conn: Conn) -> None:
    conn.execute("insert into pgrun.jobs (name) select 'noop' from generate_series(1, 200)")
    hand = await hire(db)
    claimed = await hand.claim(200)
    stale = claimed[77]
    conn.execute("update pgrun.jobs set fence = fence + 1 where run_id = %s", [stale.run_id])
    accepted = await hand.verbs.finish([completed(run, run.run_id) for run in claimed])
    assert accepted == {run.run_id for run in claimed} - {stale.run_id}
    assert (
        one(conn, "select count(*) from pgrun.jobs where status = 'completed' and output #>> '{}' = run_id::text")
        == 199
    )
    assert row_of(conn, stale.run_id)["status"] == "running"


async def test_a_run_that_was_deleted_is_not_accepted(db: PostgresDb, conn: Conn) -> None:
    kept, deleted = await submit(db), await submit(db)
    hand = await hire(db)
    claimed = await hand.claim()
    conn.execute("delete from pgrun.jobs where run_id = %s", [deleted])
    assert await hand.complete(*claimed) == {kept}


async def test_one_notification_names_all_that_ended_in_a_call_of_200(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    conn.execute("insert into pgrun.jobs (name) select 'noop' from generate_series(1, 200)")
    hand = await hire(db)
    claimed = await hand.claim(200)
    ear.heard()
    await hand.verbs.finish([completed(run) if n % 2 else failed(run) for n, run in enumerate(claimed)])
    ((channel, payload),) = ear.heard()
    assert channel == "done"
    assert sorted(payload.split(",")) == sorted(run.run_id for run in claimed)


async def test_a_stale_finish_notifies_nobody(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    await submit(db)
    hand = await hire(db)
    claimed = await hand.claim_one()
    await hand.complete(claimed)
    ear.heard()
    await hand.complete(claimed)
    await hand.verbs.finish([failed(claimed._replace(fence=0))])
    assert ear.heard() == []
