"""write_events, read_events, prune_events: who may add to the stream of a run, what readers are given, and when it goes."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from support.blocking import rival
from support.crew import crew
from support.database import Conn
from support.ear import Ear
from support.hands import hire, lose, submit
from support.tables import claim, finish, one, perform
from support.telling import kinds, stream, tell, texts, told, write

from pgrun import PostgresDb
from pgrun._ids import new_run_id
from pgrun.db.records import Place


async def test_events_are_written_by_the_worker_that_holds_the_run(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    run_id = await submit(db, streams=True)
    hand = await hire(db)
    claimed = await hand.claim_one()
    ear.heard()
    assert await tell(hand, claimed, "It ", "rains.")
    assert ear.heard() == [("events", run_id)]
    assert texts(conn, run_id) == ["It ", "rains."]
    assert {row["attempt"] for row in stream(conn, run_id)} == {1}


async def test_a_repeat_writes_nothing_twice(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db, streams=True)
    hand = await hire(db)
    claimed = await hand.claim_one()
    for _ in range(2):
        assert await hand.verbs.write_events([told(claimed, 2, "It ", "rains.")]) == {run_id: True}
    assert texts(conn, run_id) == ["It ", "rains."]


async def test_a_worker_that_has_lost_a_run_writes_nothing_to_it(db: PostgresDb, conn: Conn) -> None:
    run_ids = [await submit(db, streams=True) for _ in range(4)]
    old, new = await hire(db), await hire(db)
    first, second, third, fourth = await old.claim()
    await old.complete(second)
    await old.verbs.retry(third, delay=0, error={}, metrics=None)
    lose(conn, old)
    conn.execute("update pgrun.jobs set worker_id = %s where run_id = %s", [new.worker_id, fourth.run_id])
    await new.verbs.rescue(new.worker_id)
    assert len(await new.claim()) == 2
    before = [stream(conn, run_id) for run_id in run_ids]
    assert await old.verbs.write_events([told(each, 3, "late") for each in (first, second, third)]) == {}
    assert [stream(conn, run_id) for run_id in run_ids] == before
    assert await old.verbs.write_events([told(first, 3, "late"), told(fourth, 2, "in time")]) == {run_ids[3]: True}


async def test_nothing_is_written_to_a_run_that_nobody_reads_whatever_its_worker_believes(
    db: PostgresDb, conn: Conn
) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    claimed = await hand.claim_one()
    assert await tell(hand, claimed, "It ") is None
    await hand.verbs.watch(run_id)
    assert await tell(hand, claimed, "rains.")
    assert kinds(conn, run_id) == ["started", "text"]


async def test_what_ends_a_run_waits_for_events_that_are_being_written(db: PostgresDb, conn: Conn, dsn: str) -> None:
    run_id = await submit(db, streams=True)
    hand = await hire(db)
    claimed = await hand.claim_one()
    with rival(dsn) as other:
        with conn.transaction():
            write(conn, told(claimed, 2, "It ", "rains."))
            ended = other.call(finish, run_id, claimed.fence)
            other.until_blocked_by(conn)
        assert ended.result(timeout=10)
    assert kinds(conn, run_id) == ["started", "text", "text", "completed"]


async def test_a_claim_that_takes_over_counts_on_behind_events_that_were_being_written(
    db: PostgresDb, conn: Conn, dsn: str
) -> None:
    run_id = await submit(db, streams=True)
    old, new = await hire(db), await hire(db)
    claimed = await old.claim_one()
    with rival(dsn) as other:
        with conn.transaction():
            write(conn, told(claimed, 2, "It "))
            kept = {"error": "", "metrics": "", "keeps_call": True, "parks": False}
            given_back = other.perform("release_runs", run_ids=[run_id], fences=[1], delay=0, **kept)
            other.until_blocked_by(conn)
        assert given_back.result(timeout=10)
    assert await tell(new, await new.claim_one(), "Sun.")
    assert await tell(old, claimed, "rains.") is None
    assert kinds(conn, run_id) == ["started", "text", "released", "started", "text"]


async def test_a_run_that_somebody_has_locked_keeps_no_other_waiting(db: PostgresDb, conn: Conn, dsn: str) -> None:
    locked, free = await submit(db, streams=True), await submit(db, streams=True)
    hand = await hire(db)
    claimed = {each.run_id: each for each in await hand.claim()}
    with rival(dsn) as other:
        with conn.transaction():
            perform(conn, "cancel_run", run_id=locked)
            rows = other.call(write, *(told(each, 2, "Hi") for each in claimed.values())).result(timeout=10)
        assert {row["run_id"]: row["written"] for row in rows} == {locked: False, free: True}
    assert await tell(hand, claimed[locked], "Hi")


async def test_those_who_begin_to_read_at_the_same_time_tell_the_story_once(
    db: PostgresDb, conn: Conn, dsn: str
) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    await hand.complete(await hand.claim_one())
    with crew(dsn) as readers:
        looks = [readers.start(perform, "watch_run", run_id=run_id) for _ in range(8)]
        assert {look.result(timeout=10)[0]["status"] for look in looks} == {"completed"}
    assert kinds(conn, run_id) == ["started", "completed"]


@pytest.mark.parametrize("first", ["claim", "watch"])
async def test_a_claim_and_a_first_reader_at_the_same_time_tell_one_start(
    db: PostgresDb, conn: Conn, dsn: str, first: str
) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    with rival(dsn) as other:
        with conn.transaction():
            if first == "claim":
                assert claim(conn, hand.worker_id)
                begun = other.perform("watch_run", run_id=run_id)
                other.until_blocked_by(conn)
            else:
                perform(conn, "watch_run", run_id=run_id)
                assert other.call(claim, hand.worker_id).result(timeout=10) == []  # it skips what is locked
        if first == "claim":
            assert begun.result(timeout=10)[0]["status"] == "running"
        else:
            assert claim(conn, hand.worker_id)[0]["streams"]
    assert kinds(conn, run_id) == ["started"]


async def test_pages_hold_what_comes_after_a_place(db: PostgresDb) -> None:
    run_id = await submit(db, streams=True)
    hand = await hire(db)
    claimed = await hand.claim_one()
    await tell(hand, claimed, *"abcde")
    here, end, gone = Place(run_id, 2), Place(run_id, 6), Place(new_run_id(), 0)
    pages = await hand.verbs.read_events([here, end, gone], page=3)
    assert [(event.seq, event.data["text"]) for event in pages[here].events] == [(3, "b"), (4, "c"), (5, "d")]
    assert pages[here].status == "running"
    assert end not in pages, "nothing new"
    assert (pages[gone].events, pages[gone].status) == ([], None)
    await hand.complete(claimed)
    pages = await hand.verbs.read_events([end, Place(run_id, 7), Place(run_id, 99)], page=3)
    assert [(len(page.events), page.status) for page in pages.values()] == [(1, "completed"), *[(0, "completed")] * 2]


async def test_a_reader_in_the_middle_gets_the_pieces_before(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db, streams=True)
    hand = await hire(db)
    claimed = await hand.claim_one()
    await tell(hand, claimed, "It ", "rains.")
    conn.execute(
        "insert into pgrun.events (run_id, seq, kind, attempt) values (%s, 4, 'model_call_completed', 1)", [run_id]
    )
    await tell(hand, claimed, "Sun", ".")
    so_far = {after: await hand.verbs.answer_so_far(Place(run_id, after)) for after in (0, 1, 2, 3, 4, 5, 6)}
    assert so_far == {0: [], 1: [], 2: ["It "], 3: ["It ", "rains."], 4: [], 5: ["Sun"], 6: ["Sun", "."]}


async def test_the_events_of_old_runs_are_pruned_and_told_anew_to_who_still_reads(db: PostgresDb, conn: Conn) -> None:
    old, young, open_run = [await submit(db, streams=True) for _ in range(3)]
    hand = await hire(db)
    claimed = await hand.claim()
    for each in claimed:
        await tell(hand, each, "It ", "rains.")
    await hand.complete(*claimed[:2])
    conn.execute("update pgrun.jobs set finished_at = now() - interval '2 h' where run_id = %s", [old])
    assert await hand.verbs.prune_events(3600, batch=10) == 1
    assert [len(stream(conn, run_id)) for run_id in (old, young, open_run)] == [0, 4, 3]
    assert await hand.verbs.prune_events(3600, batch=10) == 0
    await hand.verbs.watch(old)
    assert kinds(conn, old) == ["started", "completed"]


async def test_events_go_with_their_run(db: PostgresDb, conn: Conn) -> None:
    await submit(db, streams=True)
    hand = await hire(db)
    await hand.complete(await hand.claim_one())
    await db.aprune(0)
    assert one(conn, "select count(*) from pgrun.events") == 0


async def test_one_statement_for_many_runs_notifies_once(db: PostgresDb, ear: Ear) -> None:
    run_ids = [await submit(db, streams=True) for _ in range(200)]
    hand = await hire(db)
    claimed = await hand.claim(200)
    ear.heard()
    assert all((await hand.verbs.write_events([told(each, 2, "Hi") for each in claimed])).values())
    ((channel, payload),) = ear.heard()
    assert channel == "events"
    assert sorted(payload.split(",")) == sorted(run_ids)


async def test_the_moments_of_a_stream_are_the_databases(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db, streams=True)
    hand = await hire(db)
    claimed = await hand.claim_one()
    await tell(hand, claimed, "Hi")
    await hand.complete(claimed)
    moments: Sequence[Any] = [row["created_at"] for row in stream(conn, run_id)]
    assert moments == sorted(moments)
    assert moments[-1] - moments[0] < timedelta(seconds=10)
