"""pgrun.why and queue_stats.waits_for: what a run waits for, in the order in which it would have to be seen to."""

import pytest
from support.database import Conn
from support.hands import Hand, hire, lose, submit
from support.tables import one

from pgrun import PostgresDb


def why(conn: Conn, run_id: str) -> str | None:
    said = one(conn, "select pgrun.why(%s)", run_id)
    return None if said is None else str(said)


def stopped_by(conn: Conn) -> str | None:
    said = one(conn, "select waits_for from pgrun.queue_stats where queue = 'default'")
    return None if said is None else str(said)


async def test_what_does_not_wait_has_no_reason(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    run_id = await submit(db)
    claimed = await hand.claim_one()
    assert why(conn, run_id) is None
    await hand.complete(claimed)
    assert why(conn, run_id) is None
    assert why(conn, hand.worker_id) is None  # no run


async def test_a_run_waits_for_its_session_or_its_time(db: PostgresDb, conn: Conn) -> None:
    first, second = await submit(db, session_id="s"), await submit(db, session_id="s")
    assert why(conn, second) == f'Before it comes run {first} of its session "s", which is pending.'
    later = await submit(db, delay=60)
    assert (why(conn, later) or "").startswith("It is due in 00:00:59")
    hand = await hire(db)
    await hand.verbs.retry(await hand.claim_one(), delay=60, error={"message": "broke"}, metrics=None)
    assert (why(conn, first) or "").endswith(", after broke.")


async def test_a_run_waits_for_a_person_or_for_what_it_has_started(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    run_id = await submit(db)
    parent = await hand.claim_one()
    await submit(db, parent_run_id=run_id, priority=1)
    await hand.verbs.park(parent, metrics=None)
    assert why(conn, run_id) == "It waits for runs that it has started: 1."
    await hand.complete(await hand.claim_one())
    await hand.verbs.pause(await hand.claim_one(), [], holds_session=False, metrics=None, tools=None)
    assert why(conn, run_id) == "A person has to decide: pgrun.approve(run_id)."


@pytest.mark.parametrize(
    ("limits", "reason", "column"),
    [
        ("paused_at = now()", 'Queue "default" is paused.', "paused"),
        ("concurrency = 1", 'Queue "default" runs 1 at once, as many as its concurrency says.', "concurrency"),
        ("key_concurrency = 1", 'Key "k" runs 1 at once', "key_concurrency"),
        (
            "rate = 0.001",
            'Queue "default" starts 0.001 per 00:00:01: the rate lets a run of this weight start in',
            "rate",
        ),
    ],
)
async def test_a_run_waits_for_a_limit(db: PostgresDb, conn: Conn, limits: str, reason: str, column: str) -> None:
    conn.execute(f"update pgrun.queues set {limits} where not '{limits}' like 'paused%'".encode())
    hand = await hire(db)
    await submit(db, concurrency_key="k")
    assert len(await hand.claim_limited()) == 1
    assert stopped_by(conn) is None
    run_id = await submit(db, concurrency_key="k")
    conn.execute(f"update pgrun.queues set {limits}".encode())
    assert (why(conn, run_id) or "").startswith(reason)
    assert stopped_by(conn) == column


async def test_a_run_waits_for_a_worker(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    assert why(conn, run_id) == 'No worker serves queue "default".'
    stranger = await hire(db, names=["other"])
    assert why(conn, run_id) == 'No worker of queue "default" has imported "noop".'
    expert = await hire(db, names=["noop"])
    assert why(conn, run_id) == "A worker is about to take it."
    await submit(db, priority=-1)
    await expert.claim(1)
    await fill(stranger, db)
    assert why(conn, run_id) == 'All workers of queue "default" are busy.'
    for hand in (stranger, expert):
        lose(conn, hand)
    assert why(conn, run_id) == 'No worker serves queue "default".'


async def fill(hand: Hand, db: PostgresDb) -> None:
    """Gives it a run that it knows."""
    await submit(db, name="other", priority=-1)
    await hand.claim(1)
