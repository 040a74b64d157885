"""register_worker, beat_worker, stop_worker, forget_workers, is_served: a worker's life, as the database sees it."""

from datetime import timedelta
from uuid import uuid4

import pytest
from support.database import Conn
from support.ear import Ear
from support.hands import Hand, hire, lose, submit
from support.rows import Row, row_of
from support.tables import one, perform, status

from pgrun import PostgresDb
from pgrun.db.records import WorkerCard


def worker(conn: Conn, hand: Hand) -> Row:
    row = conn.execute("select * from pgrun.workers where worker_id = %s", [hand.worker_id]).fetchone()
    assert row is not None
    return row


def beat(conn: Conn, hand: Hand, *, draining: bool = False, blocked: float = 0.0) -> list[Row]:
    return perform(conn, "beat_worker", worker_id=hand.worker_id, draining=draining, blocked=blocked)


def state(conn: Conn, hand: Hand) -> str:
    return str(one(conn, "select state from pgrun.worker_status where worker_id = %s", hand.worker_id))


async def test_what_a_worker_says_of_itself_is_in_its_row(db: PostgresDb, conn: Conn) -> None:
    verbs = (await db.connected()).verbs
    card = WorkerCard(
        worker_id=str(uuid4()), mode="embedded", host="node-7", pid=42, version="1.2", concurrency=9, lease=12.5
    )
    await verbs.register_worker(card, ["default", "mail"], ["a", "b"])
    row = worker(conn, Hand(verbs, card.worker_id, [], []))
    assert (row["mode"], row["host"], row["pid"], row["version"]) == ("embedded", "node-7", 42, "1.2")
    assert (row["queues"], row["names"], row["concurrency"]) == (["default", "mail"], ["a", "b"], 9)
    assert row["lease"] == row["lease_until"] - row["started_at"] == timedelta(seconds=12.5)
    assert (row["draining"], row["blocked_since"], row["stopped_at"]) == (False, None, None)


async def test_its_queues_exist_from_then_on(db: PostgresDb, conn: Conn) -> None:
    await hire(db, queues=["mail", "default"])
    assert one(conn, "select array_agg(queue order by queue) from pgrun.queues") == ["default", "mail"]


async def test_registering_again_changes_queues_and_names_only(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    before = worker(conn, hand)
    card = WorkerCard(worker_id=hand.worker_id, mode="daemon", host="x", pid=2, version="9", concurrency=3, lease=1)
    await hand.verbs.register_worker(card, ["mail"], ["a"])
    assert worker(conn, hand) == before | {"queues": ["mail"], "names": ["a"]}


async def test_a_worker_that_was_declared_dead_cannot_register_back_to_life(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    conn.execute("update pgrun.workers set stopped_at = now(), stop_reason = 'dead'")
    card = WorkerCard(worker_id=hand.worker_id, mode="daemon", host="x", pid=2, version="9", concurrency=3, lease=1)
    await hand.verbs.register_worker(card, ["default"], [])
    assert state(conn, hand) == "dead"
    assert beat(conn, hand) == []


async def test_a_heartbeat_moves_the_lease(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db, lease=100)
    conn.execute("update pgrun.workers set lease_until = now(), heartbeat_at = now() - interval '1 h'")
    assert beat(conn, hand) == [{"cancels": [], "streams": []}]
    row = worker(conn, hand)
    assert row["lease_until"] - row["heartbeat_at"] == timedelta(seconds=100)
    assert one(conn, "select now() - heartbeat_at < interval '1 min' from pgrun.workers")


async def test_a_heartbeat_of_a_worker_that_is_stopped_or_unknown_has_no_answer(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    await hand.verbs.stop_worker(hand.worker_id)
    before = worker(conn, hand)
    assert beat(conn, hand) == []
    assert worker(conn, hand) == before
    conn.execute("delete from pgrun.workers")
    assert beat(conn, hand) == []


async def test_a_heartbeat_names_exactly_the_runs_of_this_worker_that_someone_asked_to_cancel_or_reads(
    db: PostgresDb, conn: Conn
) -> None:
    hand, other = await hire(db), await hire(db)
    asked, not_asked, ended, others = [await submit(db, priority=n) for n in range(4)]
    claimed = {run.run_id: run for run in await hand.claim(3)}
    await other.claim_one()
    for run_id in (asked, ended, others):
        assert await hand.verbs.cancel(run_id) == "cancelling"
    for run_id in (not_asked, ended, others):
        await hand.verbs.watch(run_id)
    await hand.complete(claimed[ended])
    (row,) = beat(conn, hand)
    assert [str(run_id) for run_id in row["cancels"]] == [asked]
    assert [str(run_id) for run_id in row["streams"]] == [not_asked]


async def test_the_state_of_a_worker_is_what_is_worst_about_it(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    assert state(conn, hand) == "alive"
    beat(conn, hand, draining=True)
    assert state(conn, hand) == "draining"
    beat(conn, hand, draining=True, blocked=3.5)
    assert state(conn, hand) == "blocked"
    blocked_for = one(conn, "select extract(epoch from blocked_for)::float8 from pgrun.worker_status")
    assert blocked_for == pytest.approx(3.5, abs=1)
    lose(conn, hand)
    assert state(conn, hand) == "lost"
    beat(conn, hand)
    conn.execute("update pgrun.workers set lease_until = now() + interval '1 h'")
    assert state(conn, hand) == "alive"
    await hand.verbs.stop_worker(hand.worker_id)
    assert state(conn, hand) == "stopped"


async def test_a_rescued_worker_is_shown_as_dead(db: PostgresDb, conn: Conn) -> None:
    hand, other = await hire(db), await hire(db)
    lose(conn, hand)
    await other.verbs.rescue(other.worker_id)
    assert state(conn, hand) == "dead"
    shown = [str(row["worker_id"]) for row in await other.verbs.worker_status()]
    assert shown == [other.worker_id]


async def test_the_status_counts_what_a_worker_holds(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    for _ in range(3):
        await submit(db)
    await hand.complete(*(await hand.claim())[:1])
    assert [row["running"] for row in await hand.verbs.worker_status()] == [2]


async def test_a_goodbye_gives_back_uncounted_whatever_the_worker_still_holds(db: PostgresDb, conn: Conn) -> None:
    hand, other = await hire(db), await hire(db)
    held, ended, cancelled, others = [await submit(db, priority=n) for n in range(4)]
    claimed = {run.run_id: run for run in await hand.claim(3)}
    await other.claim_one()
    await hand.complete(claimed[ended])
    await hand.verbs.cancel(cancelled)
    assert await hand.verbs.stop_worker(hand.worker_id) == {held, cancelled}
    row = row_of(conn, held)
    assert (row["status"], row["attempt"], row["fence"], row["error"]) == ("pending", 0, 1, None)
    assert [status(conn, run_id) for run_id in (ended, cancelled, others)] == ["completed", "cancelled", "running"]
    assert worker(conn, hand)["stop_reason"] == "stopped"
    assert (await other.claim_one()).fence == 2
    assert await hand.complete(claimed[held]) == set()


async def test_a_goodbye_can_be_repeated_and_does_not_hide_that_it_was_dead(db: PostgresDb, conn: Conn) -> None:
    hand, dead, other = [await hire(db) for _ in range(3)]
    await hand.verbs.stop_worker(hand.worker_id)
    before = worker(conn, hand)
    assert await hand.verbs.stop_worker(hand.worker_id) == set()
    assert worker(conn, hand) == before
    lose(conn, dead)
    await other.verbs.rescue(other.worker_id)
    await dead.verbs.stop_worker(dead.worker_id)
    assert state(conn, dead) == "dead"


async def test_a_goodbye_wakes_others_and_tells_who_waits(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    hand = await hire(db, queues=["a", "b"])
    conn.execute("insert into pgrun.jobs (name, queue) select 'noop', chr(97 + n % 2) from generate_series(1, 20) n")
    claimed = await hand.claim()
    cancelled = claimed[0].run_id
    await hand.verbs.cancel(cancelled)
    ear.heard()
    await hand.verbs.stop_worker(hand.worker_id)
    assert sorted(ear.heard()) == [("done", cancelled), ("wake", "a"), ("wake", "b")]


async def test_workers_that_have_been_gone_for_a_day_are_forgotten(db: PostgresDb, conn: Conn) -> None:
    old, recent, alive = [await hire(db) for _ in range(3)]
    for hand, hours in [(old, 25), (recent, 23)]:
        conn.execute(
            "update pgrun.workers set stopped_at = now() - make_interval(hours => %s) where worker_id = %s",
            [hours, hand.worker_id],
        )
    assert await alive.verbs.forget_workers() == 1
    left = conn.execute("select worker_id from pgrun.workers").fetchall()
    assert {str(row["worker_id"]) for row in left} == {recent.worker_id, alive.worker_id}


async def test_a_queue_is_served_by_a_live_daemon_only(db: PostgresDb, conn: Conn) -> None:
    verbs = (await db.connected()).verbs
    await hire(db, mode="embedded")
    assert not await verbs.is_served("default")
    for left in ("lost", "draining", "stopped"):
        hand = await hire(db)
        assert await verbs.is_served("default")
        assert not await verbs.is_served("mail")
        match left:
            case "lost":
                lose(conn, hand)
            case "draining":
                beat(conn, hand, draining=True)
            case "stopped":
                await verbs.stop_worker(hand.worker_id)
        assert not await verbs.is_served("default"), left


async def test_what_only_those_can_execute_who_imported_it_is_served_by_them_only(db: PostgresDb, conn: Conn) -> None:
    verbs = (await db.connected()).verbs
    await hire(db, names=["a", "b"])
    await hire(db, names=["c"])
    for names, served in (((), True), (("a",), True), (("b", "a"), True), (("a", "c"), False), (("d",), False)):
        assert await verbs.is_served("default", names) is served, names
