"""The streams of runs in the database: who tells what, who may not, and that numbers have no gap."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from support.blocking import rival
from support.crew import crew
from support.database import Conn
from support.ear import Ear
from support.hands import Hand, cancelled, completed, failed, hire, lose, submit
from support.rows import Row, row_of
from support.tables import claim, finish, one, perform

from pgrun import PostgresDb, RunNotFound
from pgrun._ids import new_run_id
from pgrun.db.records import Claimed, Place, Told


def stream(conn: Conn, run_id: str) -> list[Row]:
    """The events of a run; their numbers have no gap."""
    rows = conn.execute("select * from pgrun.events where run_id = %s order by seq", [run_id]).fetchall()
    assert [row["seq"] for row in rows] == [*range(1, len(rows) + 1)]
    return rows


def kinds(conn: Conn, run_id: str) -> list[str]:
    return [row["kind"] for row in stream(conn, run_id)]


def texts(conn: Conn, run_id: str) -> list[str]:
    return [row["data"]["text"] for row in stream(conn, run_id) if row["kind"] == "text"]


def told(claimed: Claimed, seq: int, *said: str) -> Told:
    """Pieces of text as a worker writes them."""
    events = json.dumps([["text", {"text": text}] for text in said])
    return Told(claimed.run_id, claimed.fence, seq, events.encode())


def write(conn: Conn, *events: Told) -> list[Row]:
    """Writes them on a plain connection."""
    runs = {each.run_id: {"fence": each.fence, "seq": each.seq, "events": json.loads(each.events)} for each in events}
    return perform(conn, "write_events", events=json.dumps(runs))


async def tell(hand: Hand, claimed: Claimed, *said: str) -> bool | None:
    """Writes pieces of text after what is there."""
    last = await hand.verbs.last_events([claimed.run_id])
    written = await hand.verbs.write_events([told(claimed, last[claimed.run_id] + 1, *said)])
    return written.get(claimed.run_id)


async def test_a_run_that_nobody_reads_has_no_events(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    await submit(db)
    hand = await hire(db)
    await hand.complete(await hand.claim_one())
    assert one(conn, "select count(*) from pgrun.events") == 0
    assert {channel for channel, _ in ear.heard()} == {"wake", "done"}


async def test_what_becomes_of_a_run_is_told_in_the_transaction_that_does_it(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db, streams=True)
    hand = await hire(db)
    error = {"type": "ModelUnavailable", "message": "busy"}
    claimed = await hand.claim_one()
    assert claimed.streams
    assert await hand.verbs.retry(claimed, delay=0, error=error, metrics=None)
    claimed = await hand.claim_one()
    await hand.verbs.release([(run_id, claimed.fence)])
    await hand.complete(await hand.claim_one())
    rows = stream(conn, run_id)
    assert [(row["kind"], row["attempt"]) for row in rows] == [
        *(("started", 1), ("retried", 1), ("started", 2), ("released", 2), ("started", 2), ("completed", 2))
    ]
    assert rows[0]["data"] == {"attempt": 1, "worker_id": hand.worker_id}
    assert rows[1]["data"]["error"] == error
    assert rows[-1]["data"] == {"output": "done", "content_type": "str", "metrics": {"total_tokens": 7}}


async def test_every_end_is_told(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    for ending in (failed, cancelled):
        run_id = await submit(db, streams=True)
        await hand.verbs.finish([ending(await hand.claim_one())])
        row = row_of(conn, run_id)
        assert kinds(conn, run_id) == ["started", row["status"]]
    run_id = await submit(db, streams=True)
    assert await hand.verbs.cancel(run_id) == "cancelled"
    assert kinds(conn, run_id) == ["cancelled"]


async def test_a_rescue_is_told(db: PostgresDb, conn: Conn) -> None:
    first, last = await submit(db, streams=True), await submit(db, streams=True, max_attempts=1)
    dead, alive = await hire(db), await hire(db)
    assert len(await dead.claim()) == 2
    lose(conn, dead)
    await alive.verbs.rescue(alive.worker_id)
    assert kinds(conn, first) == ["started", "retried"]
    assert kinds(conn, last) == ["started", "error"]
    assert {stream(conn, run_id)[1]["data"]["error"]["type"] for run_id in (first, last)} == {"LeaseLost"}


async def test_a_worker_that_leaves_is_told(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db, streams=True)
    hand = await hire(db)
    await hand.claim_one()
    await hand.verbs.stop_worker(hand.worker_id)
    assert kinds(conn, run_id) == ["started", "released"]


async def test_after_a_retry_by_a_person_numbers_go_on(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db, streams=True)
    hand = await hire(db)
    await hand.verbs.finish([failed(await hand.claim_one())])
    await hand.verbs.retry_ended(run_id)
    await hand.complete(await hand.claim_one())
    assert kinds(conn, run_id) == ["started", "error", "retried", "started", "completed"]
    assert stream(conn, run_id)[2]["data"]["error"] is None


async def test_a_pause_and_what_follows_are_told(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db, streams=True)
    conn.execute("update pgrun.jobs set status = 'paused'")
    conn.execute("update pgrun.jobs set status = 'pending'")
    assert kinds(conn, run_id) == ["paused", "resumed"]


async def test_a_run_that_waits_for_its_children_is_parked_and_resumed(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    parent = await submit(db, streams=True, priority=-1)
    child = await submit(db, parent_run_id=parent)
    mine, other = await hand.claim(2)
    assert await hand.verbs.park(mine, metrics=None)
    assert other.run_id == child
    await hand.complete(other)
    await hand.complete(await hand.claim_one())
    assert kinds(conn, parent) == ["started", "parked", "resumed", "started", "completed"]
    assert stream(conn, parent)[1]["data"] == {"waits_for": "children"}
    assert [row["attempt"] for row in stream(conn, parent)][3:] == [1, 1], "no attempt is used up"


async def test_a_run_that_waits_for_its_provider_is_parked_and_one_that_is_given_back_is_not(
    db: PostgresDb, conn: Conn
) -> None:
    hand = await hire(db)
    run_id = await submit(db, streams=True)
    for parks in (True, False, True):
        claimed = await hand.claim_one()
        await hand.verbs.note_call(claimed, 1, "resp_1")
        await hand.verbs.release([(run_id, claimed.fence)], parks=parks)
    claimed = await hand.claim_one()
    await hand.verbs.retry(claimed, delay=0, error={"message": "broke"}, metrics=None, keeps_call=True)
    await hand.claim_one()
    await hand.verbs.stop_worker(hand.worker_id)
    told = [kind for kind in kinds(conn, run_id) if kind != "started"]
    assert told == ["parked", "released", "parked", "retried", "released"]
    parked = next(row["data"] for row in stream(conn, run_id) if row["kind"] == "parked")
    assert parked["waits_for"] == "provider"
    assert "due_at" in parked


async def test_one_who_begins_to_read_a_parked_run_is_told_so(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    parent = await submit(db, priority=-1)
    await submit(db, parent_run_id=parent)
    mine, *_ = await hand.claim(2)
    await hand.verbs.park(mine, metrics=None)
    await hand.verbs.watch(parent)
    assert kinds(conn, parent) == ["started", "parked"]


async def test_one_who_begins_to_read_a_running_run_tells_its_worker(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    await hand.claim_one()
    ear.heard()
    assert await hand.verbs.watch(run_id) == "running"
    assert ear.heard() == [("watch", run_id), ("events", run_id)]
    (started,) = stream(conn, run_id)
    assert (started["kind"], started["attempt"]) == ("started", 1)
    assert started["created_at"] == row_of(conn, run_id)["started_at"]
    assert await hand.verbs.watch(run_id) == "running"
    assert ear.heard() == []
    assert len(stream(conn, run_id)) == 1
    (beat,) = perform(conn, "beat_worker", worker_id=hand.worker_id, draining=False, blocked=0)
    assert [str(each) for each in beat["streams"]] == [run_id]


async def test_a_run_that_waits_has_nothing_to_tell_yet(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    assert await hand.verbs.watch(run_id) == "pending"
    assert stream(conn, run_id) == []
    await hand.claim_one()
    assert kinds(conn, run_id) == ["started"]
    assert "watch" not in [channel for channel, _ in ear.heard()]


async def test_a_run_that_does_not_exist_cannot_be_read(db: PostgresDb) -> None:
    verbs = (await db.connected()).verbs
    run_id = new_run_id()
    with pytest.raises(RunNotFound, match=f"no run {run_id} exists"):
        await verbs.watch(run_id)
    assert (await verbs.read_events([Place(run_id, 0)], page=10))[Place(run_id, 0)].status is None


async def test_of_a_run_that_has_ended_unread_the_steps_are_told(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db, kind="agent", name="Weather", definition={})
    hand = await hire(db)
    claimed = await hand.claim_one()
    call = {"call_id": "c", "name": "look", "arguments": {"city": "Rome"}}
    answer = {"text": "I look.", "usage": {"total_tokens": 5}, "calls": [call]}
    for number, kind, name, data in (
        (1, "model_call", "gpt", answer),
        (2, "tool_call", "look", {**call, "result": "sun"}),
    ):
        step = {"number": number, "kind": kind, "name": name, "data": data, "duration": 0.5}
        assert await hand.verbs.record_step(claimed, **step, metrics=None)  # type: ignore[arg-type]
    await hand.complete(claimed)
    assert await hand.verbs.watch(run_id) == "completed"
    rows = stream(conn, run_id)
    assert [(row["kind"], row["data"]) for row in rows] == [
        ("started", {"attempt": 1, "worker_id": hand.worker_id}),
        ("text", {"text": "I look."}),
        ("model_call_completed", {"model": "gpt", "usage": {"total_tokens": 5}, "duration": 0.5}),
        ("tool_call_started", call),
        ("tool_call_completed", {"call_id": "c", "name": "look", "result": "sun", "duration": 0.5}),
        ("text", {"text": "done"}),
        ("completed", {"output": "done", "content_type": "str", "metrics": {"total_tokens": 7}}),
    ]
    assert rows[-1]["created_at"] == row_of(conn, run_id)["finished_at"]


async def test_the_answer_of_a_run_that_nobody_read_is_told_as_the_model_wrote_it(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db, kind="agent", definition={}, output_schema={"type": "object"})
    hand = await hire(db)
    await hand.verbs.finish([completed(await hand.claim_one(), {"city": "Rome"})])
    await hand.verbs.watch(run_id)
    assert [json.loads(text) for text in texts(conn, run_id)] == [{"city": "Rome"}]


async def test_an_answer_of_which_nothing_was_told_is_told_with_its_end(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    for said in ((), ("do", "ne")):
        run_id = await submit(db, kind="agent", definition={})
        claimed = await hand.claim_one()
        await hand.verbs.watch(run_id)
        if said:
            await tell(hand, claimed, *said)
        await hand.complete(claimed)
        assert "".join(texts(conn, run_id)) == "done"
        assert kinds(conn, run_id)[-1] == "completed"


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
