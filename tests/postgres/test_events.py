"""What becomes of a run is told in its stream, by the statement that does it; whoever begins to read is told what has been."""

import json

import pytest
from support.database import Conn
from support.ear import Ear
from support.hands import cancelled, completed, failed, hire, lose, submit
from support.rows import row_of
from support.tables import one, perform
from support.telling import kinds, stream, tell, texts

from pgrun import PostgresDb, RunNotFound
from pgrun._ids import new_run_id
from pgrun.db.records import Place


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
