"""The wake-up of workers: one notification per statement and queue, and only for what may start soon."""

import pytest
from support.database import Conn
from support.ear import Ear
from support.hands import hire, lose, submit

from pgrun import PostgresDb


def test_a_plain_insert_of_one_row_wakes_its_queue(conn: Conn, ear: Ear) -> None:
    conn.execute("insert into pgrun.jobs (name, input) values ('noop', '1')")
    assert ear.heard() == [("wake", "default")]


def test_a_thousand_rows_of_one_statement_wake_each_of_their_queues_once(conn: Conn, ear: Ear) -> None:
    conn.execute("insert into pgrun.jobs (name, queue) select 'noop', 'q' || n % 2 from generate_series(1, 1000) n")
    assert sorted(ear.heard()) == [("wake", "q0"), ("wake", "q1")]


@pytest.mark.parametrize(
    ("seconds", "told"), [(-60, ["wake"]), (0, ["wake"]), (1, ["soon"]), (9, ["soon"]), (11, []), (3600, [])]
)
def test_only_what_is_due_within_ten_seconds_wakes_anyone(conn: Conn, ear: Ear, seconds: int, told: list[str]) -> None:
    conn.execute("insert into pgrun.jobs (name, due_at) values ('noop', now() + make_interval(secs => %s))", [seconds])
    assert ear.heard() == [(channel, "default") for channel in told]


def test_of_what_is_due_and_what_will_be_both_are_told(conn: Conn, ear: Ear) -> None:
    """A worker that takes what is due does not look at what will be."""
    conn.execute(
        "insert into pgrun.jobs (name, due_at) values ('a', now()), ('b', now() + interval '1 s'), ('c', now())"
    )
    assert sorted(ear.heard()) == [("soon", "default"), ("wake", "default")]


def test_of_a_mixed_statement_only_the_queues_with_something_to_do_are_woken(conn: Conn, ear: Ear) -> None:
    conn.execute(
        "insert into pgrun.jobs (name, queue, due_at) values "
        "('noop', 'now', now()), ('noop', 'later', now() + interval '1 h'), ('noop', 'now', now() + interval '1 h')"
    )
    assert ear.heard() == [("wake", "now")]


@pytest.mark.parametrize("status", ["paused", "completed"])
def test_a_row_that_is_not_pending_wakes_nobody(conn: Conn, ear: Ear, status: str) -> None:
    conn.execute(
        "insert into pgrun.jobs (name, status, finished_at) values ('noop', %s, case when %s then now() end)",
        [status, status == "completed"],
    )
    assert ear.heard() == []


def test_a_held_run_wakes_nobody(conn: Conn, ear: Ear) -> None:
    conn.execute("insert into pgrun.jobs (name, session_id) values ('noop', 's')")
    ear.heard()
    conn.execute("insert into pgrun.jobs (name, session_id) values ('noop', 's')")
    assert ear.heard() == []


def test_workers_are_woken_at_the_commit_and_by_a_rollback_never(conn: Conn, ear: Ear) -> None:
    with conn.transaction():
        conn.execute("insert into pgrun.jobs (name) values ('noop')")
        conn.execute("insert into pgrun.jobs (name) values ('noop')")
        assert ear.heard() == []
    assert ear.heard() == [("wake", "default")]
    with conn.transaction(force_rollback=True):
        conn.execute("insert into pgrun.jobs (name) values ('noop')")
    assert ear.heard() == []


async def test_a_submission_wakes_and_its_repeat_does_not(db: PostgresDb, ear: Ear) -> None:
    run_id = await submit(db)
    assert ear.heard() == [("wake", "default")]
    await submit(db, run_id=run_id)
    assert ear.heard() == []


async def test_whatever_makes_a_run_due_again_wakes(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    await submit(db, session_id="s")
    hand, other = await hire(db), await hire(db)

    claimed = await hand.claim_one()
    ear.heard()
    await hand.verbs.retry(claimed, delay=0, error={}, metrics={})
    assert ear.heard() == [("wake", "default")]

    claimed = await hand.claim_one()
    await hand.verbs.release([(claimed.run_id, claimed.fence)])
    assert ear.heard() == [("wake", "default")]

    await hand.claim_one()
    lose(conn, hand)
    await other.verbs.rescue(other.worker_id)
    assert ear.heard() == [("wake", "default")]

    await other.claim_one()
    await other.verbs.stop_worker(other.worker_id)
    assert ear.heard() == [("wake", "default")]

    await hand.verbs.retry_ended(claimed.run_id)
    assert ear.heard() == [("wake", "default")]


async def test_an_ended_run_that_is_retried_wakes_unless_it_is_held(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    first, second = await submit(db, session_id="s"), await submit(db, session_id="s")
    verbs = (await db.connected()).verbs
    await verbs.cancel(first)
    ear.heard()
    await verbs.retry_ended(first)
    assert ear.heard() == []
    await verbs.cancel(second)
    assert ear.heard() == [("wake", "default"), ("done", second)]  # for the first, which is next again


def test_a_queue_that_is_resumed_is_woken(conn: Conn, ear: Ear) -> None:
    conn.execute("select pgrun.pause_queue('default')")
    assert ear.heard() == []
    conn.execute("select pgrun.resume_queue('default')")
    assert ear.heard() == [("soon", "default")]  # there may be what is due later


async def test_a_definition_that_changes_wakes_the_runs_that_waited_for_it(
    db: PostgresDb, conn: Conn, ear: Ear
) -> None:
    await submit(db, name="Poet", delay=600)
    verbs = (await db.connected()).verbs
    ear.heard()
    await verbs.declare_agent("Poet", "default", {"model": {}}, None, 5)
    assert ear.heard() == [("wake", "default")]
    await verbs.declare_agent("Poet", "default", {"model": {}}, None, 5)
    assert ear.heard() == []
