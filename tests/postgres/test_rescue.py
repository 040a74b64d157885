"""rescue_runs.sql: what happens to the runs of a worker that is gone, and to the worker."""

from typing import Any
from uuid import uuid4

import pytest
from support.blocking import rival
from support.database import Conn
from support.ear import Ear
from support.hands import Hand, completed, failed, hire, lose, submit
from support.rows import row_of
from support.tables import one, perform, status

from pgrun import PostgresDb


async def rescue(hand: Hand) -> dict[str, str]:
    rescued, _ = await hand.verbs.rescue(hand.worker_id)
    return {str(row["run_id"]): row["status"] for row in rescued}


async def test_a_run_of_a_worker_whose_lease_has_run_out_is_due_again(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    dead, other = await hire(db), await hire(db)
    await dead.claim_one()
    assert await rescue(other) == {}
    lose(conn, dead)
    assert await rescue(other) == {run_id: "pending"}
    row = row_of(conn, run_id)
    assert (row["status"], row["attempt"], row["finished_at"]) == ("pending", 1, None)  # the attempt stays used
    assert (row["error"]["type"], row["error"]["attempt"]) == ("LeaseLost", 1)
    assert row["error"]["worker_id"] == dead.worker_id
    again = await other.claim_one()
    assert (again.attempt, again.fence) == (2, 2)


async def test_a_run_that_has_used_all_attempts_ends_in_error(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    run_id = await submit(db, max_attempts=1)
    dead, other = await hire(db), await hire(db)
    await dead.claim_one()
    lose(conn, dead)
    ear.heard()
    assert await rescue(other) == {run_id: "error"}
    row = row_of(conn, run_id)
    assert (row["status"], row["error"]["type"]) == ("error", "LeaseLost")
    assert row["finished_at"] is not None
    assert ear.heard() == [("done", run_id)]


async def test_one_that_died_in_a_call_that_may_have_happened_is_due_once_more_to_ask_a_person(
    db: PostgresDb, conn: Conn
) -> None:
    run_id = await submit(db, kind="agent", max_attempts=1)
    dead, other = await hire(db), await hire(db)
    claimed = await dead.claim_one()
    await dead.verbs.begin_step(claimed, number=2, name="refund", times=1)
    lose(conn, dead)
    assert await rescue(other) == {run_id: "pending"}
    row = row_of(conn, run_id)
    assert (row["attempt"], row["finished_at"], row["error"]["type"]) == (1, None, "LeaseLost")
    assert (await other.claim_one()).attempt == 2


async def test_one_whose_calls_have_ended_is_not(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db, kind="agent", max_attempts=1)
    dead, other = await hire(db), await hire(db)
    claimed = await dead.claim_one()
    await dead.verbs.begin_step(claimed, number=2, name="refund", times=1)
    facts: dict[str, Any] = {"kind": "tool_call", "name": "refund", "data": {}, "duration": 0.1, "metrics": None}
    await dead.verbs.record_step(claimed, number=2, **facts)
    lose(conn, dead)
    assert await rescue(other) == {run_id: "error"}


async def test_a_requested_cancel_is_carried_out(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    run_id = await submit(db)
    dead, other = await hire(db), await hire(db)
    await dead.claim_one()
    assert await dead.verbs.cancel(run_id) == "cancelling"
    lose(conn, dead)
    ear.heard()
    assert await rescue(other) == {run_id: "cancelled"}
    assert row_of(conn, run_id)["finished_at"] is not None
    assert ear.heard() == [("done", run_id)]


async def test_the_dead_worker_is_refused_from_then_on(db: PostgresDb, conn: Conn) -> None:
    dead, other = await hire(db), await hire(db)
    await submit(db)
    lose(conn, dead)
    await rescue(other)
    worker = conn.execute("select * from pgrun.workers where worker_id = %s", [dead.worker_id]).fetchone()
    assert worker is not None
    assert worker["stop_reason"] == "dead"
    assert perform(conn, "beat_worker", worker_id=dead.worker_id, draining=False, blocked=0) == []
    assert await dead.claim() == []
    assert len(await other.claim()) == 1


async def test_late_writes_of_the_dead_worker_change_nothing(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    dead, other = await hire(db), await hire(db)
    stale = await dead.claim_one()
    lose(conn, dead)
    await rescue(other)
    for claim_again in (False, True):
        if claim_again:
            await other.claim_one()
        before = row_of(conn, run_id)
        assert await dead.verbs.finish([completed(stale)]) == set()
        assert await dead.verbs.finish([failed(stale)]) == set()
        assert await dead.verbs.retry(stale, delay=0, error={}, metrics={}) is None
        assert await dead.verbs.release([(run_id, stale.fence)]) == set()
        assert await dead.verbs.stop_worker(dead.worker_id) == set()
        assert row_of(conn, run_id) == before


async def test_a_heartbeat_in_time_keeps_the_runs(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    late, other = await hire(db), await hire(db)
    await late.claim_one()
    lose(conn, late)
    assert len(perform(conn, "beat_worker", worker_id=late.worker_id, draining=False, blocked=0)) == 1
    conn.execute("update pgrun.workers set lease_until = now() + interval '1 h'")  # `lose` made the lease short
    assert await rescue(other) == {}
    assert status(conn, run_id) == "running"


async def test_a_heartbeat_that_is_being_written_is_waited_for_by_nobody_and_wins(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    late, other = await hire(db), await hire(db)
    await late.claim_one()
    lose(conn, late)
    with conn.transaction():
        perform(conn, "beat_worker", worker_id=late.worker_id, draining=False, blocked=0)
        assert await rescue(other) == {}  # neither waits nor takes anything
    assert status(conn, run_id) == "running"


async def test_a_heartbeat_that_comes_during_a_rescue_learns_that_it_is_too_late(
    db: PostgresDb, conn: Conn, dsn: str
) -> None:
    run_id = await submit(db)
    late, other = await hire(db), await hire(db)
    await late.claim_one()
    lose(conn, late)
    with rival(dsn) as session:
        with conn.transaction():
            perform(conn, "rescue_runs", worker_id=other.worker_id)
            beat = session.perform("beat_worker", worker_id=late.worker_id, draining=False, blocked=0)
            session.until_blocked_by(conn)
        assert beat.result() == []
    assert status(conn, run_id) == "pending"


async def test_after_a_restart_of_the_server_everyone_gets_a_lease_of_time_to_report_back(
    db: PostgresDb, conn: Conn
) -> None:
    run_id = await submit(db)
    away, other = await hire(db), await hire(db)
    await away.claim_one()
    lose(conn, away)
    # No row holds the start of the server; a lease longer than it has been up is the same to the statement.
    conn.execute(
        "update pgrun.workers set lease = now() - pg_postmaster_start_time() + interval '1 h' where worker_id = %s",
        [away.worker_id],
    )
    rescued, next_look = await other.verbs.rescue(other.worker_id)
    assert rescued == []
    assert next_look == pytest.approx(3600, abs=10)
    assert status(conn, run_id) == "running"
    conn.execute("update pgrun.workers set lease = now() - pg_postmaster_start_time() - interval '1 ms'")
    assert await rescue(other) == {run_id: "pending"}


async def test_runs_of_a_stopped_or_unknown_worker_are_rescued_too(db: PostgresDb, conn: Conn) -> None:
    """A claim can commit while its worker is being declared dead, or after its goodbye."""
    of_stopped, of_unknown, of_live = [await submit(db, priority=n) for n in range(3)]
    stopped, live = await hire(db), await hire(db)
    for run_id, worker_id in [(of_stopped, stopped.worker_id), (of_unknown, uuid4()), (of_live, live.worker_id)]:
        conn.execute(
            "update pgrun.jobs set status = 'running', fence = 1, worker_id = %s where run_id = %s", [worker_id, run_id]
        )
    conn.execute("update pgrun.workers set stopped_at = now() where worker_id = %s", [stopped.worker_id])
    assert await rescue(live) == {of_stopped: "pending", of_unknown: "pending"}
    assert status(conn, of_live) == "running"


async def test_a_worker_never_rescues_itself(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    await hand.claim_one()
    lose(conn, hand)
    assert await rescue(hand) == {}
    assert status(conn, run_id) == "running"


async def test_rows_that_another_session_writes_are_skipped_without_waiting(db: PostgresDb, conn: Conn) -> None:
    locked, free = await submit(db, priority=0), await submit(db, priority=1)
    dead, other = await hire(db), await hire(db)
    await dead.claim()
    lose(conn, dead)
    with conn.transaction():
        conn.execute("select from pgrun.jobs where run_id = %s for update", [locked])
        assert await rescue(other) == {free: "pending"}
    assert await rescue(other) == {locked: "pending"}


async def test_a_run_that_changed_hands_meanwhile_is_left_to_its_new_worker(
    db: PostgresDb, conn: Conn, dsn: str
) -> None:
    """The statement has seen it in the hands of a stopped worker; when it comes to lock it, a live one has it."""
    first, second = await submit(db, priority=0), await submit(db, priority=1)
    lost, stopped, rescuer, live = [await hire(db) for _ in range(4)]
    await lost.claim_one()
    await stopped.claim_one()
    conn.execute("update pgrun.workers set stopped_at = now() where worker_id = %s", [stopped.worker_id])
    lose(conn, lost)
    # The rescue cannot tell whether it may have the first run before it has declared its worker dead, and that is made to wait.
    conn.execute(
        "create function pause() returns trigger language plpgsql as "
        "'begin perform pg_advisory_xact_lock(1); return new; end';"
        "create trigger pause before update on pgrun.workers for each row execute function pause()"
    )
    with rival(dsn) as session:
        conn.execute("select pg_advisory_lock(1)")
        rescued = session.perform("rescue_runs", worker_id=rescuer.worker_id)
        session.until_blocked_by(conn)
        conn.execute("update pgrun.jobs set fence = 2, worker_id = %s where run_id = %s", [live.worker_id, second])
        conn.execute("select pg_advisory_unlock(1)")
        assert [str(row["run_id"]) for row in rescued.result() if row["run_id"]] == [first]
    row = row_of(conn, second)
    assert (row["status"], row["fence"], str(row["worker_id"])) == ("running", 2, live.worker_id)


async def test_it_says_when_the_next_lease_runs_out(db: PostgresDb, conn: Conn) -> None:
    looking, soon, later, idle = [await hire(db) for _ in range(4)]
    assert await looking.verbs.rescue(looking.worker_id) == ([], None)  # nobody holds anything
    for hand in (soon, later, looking):
        await submit(db)
        await hand.claim_one()
    for hand, seconds in [(idle, 10), (looking, 20), (soon, 300), (later, 400)]:
        conn.execute(
            "update pgrun.workers set lease = '1 ms', lease_until = now() + make_interval(secs => %s) where worker_id = %s",
            [seconds, hand.worker_id],
        )
    _, next_look = await looking.verbs.rescue(looking.worker_id)
    assert next_look == pytest.approx(300, abs=5)


@pytest.mark.slow
async def test_more_than_one_round_can_take_are_rescued_in_the_next(db: PostgresDb, conn: Conn) -> None:
    dead, other = await hire(db), await hire(db)
    conn.execute(
        "insert into pgrun.jobs (name, status, fence, worker_id) select 'noop', 'running', 1, %s from generate_series(1, 2500)",
        [dead.worker_id],
    )
    lose(conn, dead)
    for left in (1500, 500, 0):
        _, next_look = await other.verbs.rescue(other.worker_id)
        assert one(conn, "select count(*) from pgrun.jobs where status = 'running'") == left
        assert (next_look is not None and next_look <= 0) == (left > 0)  # look again at once


async def test_workers_are_woken_once_per_queue(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    dead, other = await hire(db, queues=["a", "b"]), await hire(db)
    conn.execute("insert into pgrun.jobs (name, queue) select 'noop', chr(97 + n % 2) from generate_series(1, 50) n")
    await dead.claim()
    lose(conn, dead)
    ear.heard()
    await rescue(other)
    assert sorted(ear.heard()) == [("wake", "a"), ("wake", "b")]
