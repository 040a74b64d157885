"""pause_run.sql and pgrun.approve: a run waits for people, holds no worker, and goes on once all is decided."""

import json
import random
from threading import Barrier
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb
from support.blocking import rival
from support.crew import crew
from support.database import Conn
from support.ear import Ear
from support.hands import Hand, completed, failed, hire, submit
from support.rows import row_of
from support.tables import one, perform, status

from pgrun import PostgresDb, UsageError
from pgrun.db.records import Claimed

REFUND: dict[str, Any] = {
    **{"kind": "confirmation", "step": 2, "call_id": "call_1", "name": "refund"},
    "arguments": {"order": 7},
}
SHIP = {**REFUND, "step": 3, "call_id": "call_2", "name": "ship"}
ADDRESS = {**REFUND, "kind": "user_input", "fields": [{"name": "street"}, {"name": "floor", "required": False}]}
ELSEWHERE = {**REFUND, "kind": "external"}
AGAIN = {**REFUND, "kind": "repeat", "times": 1}


async def paused(
    db: PostgresDb, *requirements: dict[str, Any], holds_session: bool = True, **columns: Any
) -> tuple[Hand, Claimed]:
    """A run that waits for a person."""
    await submit(db, **columns)
    hand = await hire(db)
    claimed = await hand.claim_one()
    assert await pause(hand, claimed, *requirements, holds_session=holds_session) == "paused"
    return hand, claimed


async def pause(hand: Hand, claimed: Claimed, *requirements: dict[str, Any], holds_session: bool = True) -> str | None:
    return await hand.verbs.pause(
        claimed, [*(requirements or [REFUND])], holds_session=holds_session, metrics={"total_tokens": 7}, tools=None
    )


def approve(conn: Conn, run_id: str, arguments: str = "", *params: Any) -> str:
    return str(one(conn, f"select pgrun.approve(%s{arguments})", run_id, *params))


def decided(conn: Conn, run_id: str) -> list[dict[str, Any]]:
    """What was decided on, without what is said of the calls and when that was."""
    told = row_of(conn, run_id)["requirements"]
    return [{key: each[key] for key in ("approved", "note", "result", "input") if key in each} for each in told]


async def test_a_paused_run_is_held_by_nobody_and_has_its_attempt_back(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    claimed = await hand.claim_one()
    ear.heard()
    assert await pause(hand, claimed) == "paused"
    row = row_of(conn, run_id)
    assert (row["status"], row["attempt"], row["fence"], row["held"]) == ("paused", 0, 1, None)
    assert (row["requirements"], row["metrics"]) == ([REFUND], {"total_tokens": 7})
    assert row["paused_at"] is not None
    assert row["finished_at"] is None
    assert await hand.claim() == []
    assert ear.heard() == [("done", run_id)]  # whoever waits in the foreground hears of it
    assert one(conn, "select running from pgrun.worker_status") == 0


async def test_a_stale_worker_pauses_nothing_and_a_repeat_finds_what_it_did(db: PostgresDb, conn: Conn) -> None:
    hand, claimed = await paused(db)
    assert await pause(hand, claimed) == "paused"
    assert await pause(hand, claimed, SHIP) is None
    assert row_of(conn, claimed.run_id)["requirements"] == [REFUND]
    approve(conn, claimed.run_id)
    assert await pause(hand, claimed) == "pending"
    again = await hand.claim_one()
    assert await pause(hand, claimed) == "running"
    assert await pause(hand, claimed, SHIP) is None
    assert status(conn, claimed.run_id) == "running"
    assert await pause(hand, again, SHIP) == "paused"


async def test_a_cancel_that_was_asked_for_is_carried_out_instead(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    await submit(db)
    hand = await hire(db)
    claimed = await hand.claim_one()
    await hand.verbs.cancel(claimed.run_id)
    ear.heard()
    assert await pause(hand, claimed, holds_session=False) == "cancelled"
    assert row_of(conn, claimed.run_id)["finished_at"] is not None
    assert ear.heard() == [("done", claimed.run_id)]
    assert await pause(hand, claimed) == "cancelled"
    assert await pause(hand, claimed, SHIP) is None


async def test_approving_makes_the_run_due_and_wakes_workers(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    hand, claimed = await paused(db)
    ear.heard()
    assert approve(conn, claimed.run_id, ", note => 'fine'") == "pending"
    assert ear.heard() == [("wake", "default")]
    row = row_of(conn, claimed.run_id)
    assert (row["status"], row["paused_at"], row["held"]) == ("pending", None, None)
    assert decided(conn, claimed.run_id) == [{"approved": True, "note": "fine"}]
    again = await hand.claim_one()
    assert (again.run_id, again.attempt, again.fence) == (claimed.run_id, 1, 2)


async def test_who_has_decided_is_kept_and_stays_when_others_say_the_same(db: PostgresDb, conn: Conn) -> None:
    _, claimed = await paused(db, REFUND, SHIP)
    approve(conn, claimed.run_id, ", 'call_1', decided_by => 'ada'")
    approve(conn, claimed.run_id, ", 'call_1', decided_by => 'eve'")
    approve(conn, claimed.run_id, ", 'call_2'")
    told = row_of(conn, claimed.run_id)["requirements"]
    assert [each["decided_by"] for each in told] == ["ada", one(conn, "select session_user::text")]


async def test_it_goes_on_only_when_nothing_is_open_any_more(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    hand, claimed = await paused(db, REFUND, SHIP)
    ear.heard()
    assert approve(conn, claimed.run_id, ", 'call_2', approved => false, note => 'too far'") == "paused"
    assert ear.heard() == []
    assert await hand.claim() == []
    assert approve(conn, claimed.run_id, ", 'call_1'") == "pending"
    assert decided(conn, claimed.run_id) == [{"approved": True}, {"approved": False, "note": "too far"}]


async def test_without_a_call_all_that_is_open_is_decided(db: PostgresDb, conn: Conn) -> None:
    _, claimed = await paused(db, REFUND, SHIP)
    assert approve(conn, claimed.run_id, ", 'call_1'") == "paused"
    assert approve(conn, claimed.run_id, ", approved => false") == "pending"
    assert decided(conn, claimed.run_id) == [{"approved": True}, {"approved": False}]


async def test_only_open_calls_are_decided_on_where_an_earlier_one_had_the_same_id(db: PostgresDb, conn: Conn) -> None:
    earlier = {**SHIP, "call_id": "call_1", "approved": False}
    _, claimed = await paused(db, earlier, REFUND)
    assert approve(conn, claimed.run_id, ", 'call_1'") == "pending"
    assert decided(conn, claimed.run_id) == [{"approved": False}, {"approved": True}]


@pytest.mark.parametrize(
    ("requirement", "arguments", "decision"),
    [
        (ELSEWHERE, "result => ''", {"approved": True, "result": ""}),
        (ELSEWHERE, "approved => false", {"approved": False}),
        (AGAIN, "result => 'done'", {"approved": True, "result": "done"}),
        (AGAIN, "approved => true", {"approved": True}),
        (ADDRESS, """input => '{"street": null}'""", {"approved": True, "input": {"street": None}}),
        (ADDRESS, "approved => false, note => 'no'", {"approved": False, "note": "no"}),
    ],
)
async def test_what_a_call_needs_is_kept_with_it(
    db: PostgresDb, conn: Conn, requirement: dict[str, Any], arguments: str, decision: dict[str, Any]
) -> None:
    _, claimed = await paused(db, requirement)
    assert approve(conn, claimed.run_id, f", {arguments}") == "pending"
    assert decided(conn, claimed.run_id) == [decision]


@pytest.mark.parametrize(
    ("requirement", "arguments", "says"),
    [
        (
            ELSEWHERE,
            "approved => true",
            r"call call_1 of refund \(external\) is executed elsewhere: say what it returned",
        ),
        (REFUND, "result => 'x'", "is called by a worker, so it takes no result"),
        (REFUND, "input => '{}'", "takes no input"),
        (ELSEWHERE, "approved => false, result => 'x'", "is rejected, so it takes no result and no input"),
        (ADDRESS, "approved => true", "waits for an input with street, floor"),
        (ADDRESS, """input => '{"street": "a", "town": "b"}'""", "waits for an input with street, floor"),
        (ADDRESS, "input => '[]'", "takes an object as input"),
    ],
)
async def test_a_decision_that_does_not_fit_is_refused_and_changes_nothing(
    db: PostgresDb, conn: Conn, requirement: dict[str, Any], arguments: str, says: str
) -> None:
    _, claimed = await paused(db, requirement)
    with pytest.raises(psycopg.Error, match=says) as caught:
        approve(conn, claimed.run_id, f", {arguments}")
    assert caught.value.sqlstate == "PGR02"
    assert row_of(conn, claimed.run_id)["requirements"] == [requirement]


async def test_a_result_belongs_to_one_call(db: PostgresDb, conn: Conn) -> None:
    _, claimed = await paused(db, ELSEWHERE, {**ELSEWHERE, "call_id": "call_2"})
    with pytest.raises(psycopg.Error, match="waits for 2 calls: say which of them has this result"):
        approve(conn, claimed.run_id, ", result => 'x'")


async def test_an_unknown_call_is_refused_with_those_that_wait(db: PostgresDb, conn: Conn) -> None:
    _, claimed = await paused(db, REFUND, SHIP)
    with pytest.raises(psycopg.Error, match='is paused: it does not wait for call "call_9"') as caught:
        approve(conn, claimed.run_id, ", 'call_9'")
    hint = "It waits for: call_1 (confirmation of refund), call_2 (confirmation of ship)."
    assert (caught.value.sqlstate, caught.value.diag.message_hint) == ("PGR02", hint)


@pytest.mark.parametrize("state", ["pending", "running", "completed", "error", "cancelled"])
async def test_a_run_that_waits_for_nobody_is_refused(db: PostgresDb, conn: Conn, state: str) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    if state == "cancelled":
        await hand.verbs.cancel(run_id)
    elif state != "pending":
        claimed = await hand.claim_one()
        if state != "running":
            await hand.verbs.finish([completed(claimed) if state == "completed" else failed(claimed)])
    with pytest.raises(psycopg.Error, match=f"run {run_id} is {state}: it waits for nobody") as caught:
        approve(conn, run_id)
    hint = caught.value.diag.message_hint
    assert hint is not None
    conn.execute(hint.partition(": ")[2].encode())  # as it stands


async def test_the_library_says_the_same_in_its_words(db: PostgresDb) -> None:
    hand, claimed = await paused(db)
    with pytest.raises(UsageError, match=r'does not wait for call "x"\. It waits for: call_1'):
        await hand.verbs.approve(claimed.run_id, {"call_id": "x"})


async def test_saying_the_same_again_changes_nothing_and_the_contrary_is_refused(db: PostgresDb, conn: Conn) -> None:
    _, claimed = await paused(db, REFUND, SHIP)
    for expected in ("paused", "paused"):
        assert approve(conn, claimed.run_id, ", 'call_1'") == expected
    with pytest.raises(psycopg.Error, match="is paused: this was approved already"):
        approve(conn, claimed.run_id, ", 'call_1', approved => false")
    for _ in range(2):
        assert approve(conn, claimed.run_id) == "pending"
    with pytest.raises(psycopg.Error, match="is pending: this was approved already"):
        approve(conn, claimed.run_id, ", approved => false")


async def test_a_decision_that_is_sent_again_does_not_decide_on_what_is_open_by_then(
    db: PostgresDb, conn: Conn
) -> None:
    hand, claimed = await paused(db)
    decision = json.dumps({"decision_id": str(uuid4())})
    (answer,) = perform(conn, "approve_run", run_id=claimed.run_id, decision=decision)
    assert answer["status"] == "pending"
    told = row_of(conn, claimed.run_id)["requirements"]
    await pause(hand, await hand.claim_one(), *told, {**REFUND, "step": 4})
    (answer,) = perform(conn, "approve_run", run_id=claimed.run_id, decision=decision)
    assert answer["status"] == "paused"
    assert decided(conn, claimed.run_id) == [{"approved": True}, {}]


async def test_two_who_approve_at_once_are_both_told_that_it_goes_on(
    db: PostgresDb, conn: Conn, dsn: str, ear: Ear
) -> None:
    _, claimed = await paused(db)
    ear.heard()
    with rival(dsn) as session:
        with conn.transaction():
            assert approve(conn, claimed.run_id) == "pending"
            second = session.call(approve, claimed.run_id)
            session.until_blocked_by(conn)
        assert second.result() == "pending"
    assert ear.heard() == [("wake", "default")]


async def test_two_who_decide_on_the_last_two_calls_at_once_make_it_go_on(db: PostgresDb, conn: Conn, dsn: str) -> None:
    _, claimed = await paused(db, REFUND, SHIP)
    with rival(dsn) as session:
        with conn.transaction():
            assert approve(conn, claimed.run_id, ", 'call_1'") == "paused"
            second = session.call(approve, claimed.run_id, ", 'call_2'")
            session.until_blocked_by(conn)
        assert second.result() == "pending"
    assert decided(conn, claimed.run_id) == [{"approved": True}, {"approved": True}]


async def test_who_approves_while_somebody_cancels_is_told_that_it_is_cancelled(
    db: PostgresDb, conn: Conn, dsn: str
) -> None:
    _, claimed = await paused(db)
    with rival(dsn) as session:
        with conn.transaction():
            assert one(conn, "select pgrun.cancel(%s)", claimed.run_id) == "cancelled"
            second = session.call(approve, claimed.run_id)
            session.until_blocked_by(conn)
        with pytest.raises(psycopg.Error, match="is cancelled: it waits for nobody"):
            second.result()
    assert status(conn, claimed.run_id) == "cancelled"


async def test_who_cancels_while_somebody_approves_cancels_the_run_that_goes_on(
    db: PostgresDb, conn: Conn, dsn: str
) -> None:
    _, claimed = await paused(db)
    with rival(dsn) as session:
        with conn.transaction():
            assert approve(conn, claimed.run_id) == "pending"
            second = session.call(lambda own: one(own, "select pgrun.cancel(%s)", claimed.run_id))
            session.until_blocked_by(conn)
        assert second.result() == "cancelled"
    assert status(conn, claimed.run_id) == "cancelled"


async def test_who_approves_while_the_worker_is_just_pausing_waits_for_it(db: PostgresDb, conn: Conn, dsn: str) -> None:
    await submit(db)
    hand = await hire(db)
    claimed = await hand.claim_one()
    with rival(dsn) as session:
        with conn.transaction():
            requirements = json.dumps([REFUND])
            held = {"run_id": claimed.run_id, "fence": claimed.fence, "holds_session": True}
            assert perform(conn, "pause_run", **held, requirements=requirements, metrics="", tools="")
            second = session.call(approve, claimed.run_id)
            session.until_blocked_by(conn)
        assert second.result() == "pending"
    assert (await hand.claim_one()).fence == 2


async def test_a_paused_run_holds_its_session(db: PostgresDb, conn: Conn) -> None:
    hand, claimed = await paused(db, session_id="s")
    later = await submit(db, session_id="s")
    assert row_of(conn, later)["held"] == "session"
    approve(conn, claimed.run_id)
    assert [run.run_id for run in await hand.claim()] == [claimed.run_id]


async def test_one_that_steps_aside_lets_the_next_run_of_its_session_start(
    db: PostgresDb, conn: Conn, ear: Ear
) -> None:
    first, second, third = [await submit(db, session_id="s") for _ in range(3)]
    hand = await hire(db)
    claimed = await hand.claim_one()
    ear.heard()
    assert await pause(hand, claimed, holds_session=False) == "paused"
    assert [row_of(conn, run_id)["held"] for run_id in (first, second, third)] == ["person", None, "session"]
    assert {*ear.heard()} == {("wake", "default"), ("done", first)}
    assert (await hand.claim_one()).run_id == second


async def test_one_that_stepped_aside_goes_on_behind_the_run_that_is_open_and_before_all_others(
    db: PostgresDb, conn: Conn
) -> None:
    first, second, third = [await submit(db, session_id="s") for _ in range(3)]
    hand = await hire(db)
    await pause(hand, await hand.claim_one(), holds_session=False)
    claimed = await hand.claim_one()
    assert approve(conn, first) == "pending"
    assert [row_of(conn, run_id)["held"] for run_id in (first, second, third)] == ["session", None, "session"]
    assert await hand.claim() == []
    await hand.complete(claimed)
    assert [run.run_id for run in await hand.claim()] == [first]


async def test_one_that_stepped_aside_goes_on_at_once_where_nothing_is_open(
    db: PostgresDb, conn: Conn, ear: Ear
) -> None:
    hand, claimed = await paused(db, holds_session=False, session_id="s")
    later = await submit(db, session_id="s")
    assert row_of(conn, later)["held"] is None
    await hand.complete(await hand.claim_one())
    ear.heard()
    assert approve(conn, claimed.run_id) == "pending"
    assert ear.heard() == [("wake", "default")]
    assert (await hand.claim_one()).run_id == claimed.run_id


async def test_cancelling_one_that_stepped_aside_opens_nothing(db: PostgresDb, conn: Conn) -> None:
    first, second, third = [await submit(db, session_id="s") for _ in range(3)]
    hand = await hire(db)
    await pause(hand, await hand.claim_one(), holds_session=False)
    await hand.claim_one()
    assert await hand.verbs.cancel(first) == "cancelled"
    assert [row_of(conn, run_id)["held"] for run_id in (first, second, third)] == [None, None, "session"]


async def test_a_run_that_is_retried_does_not_wait_for_one_that_stepped_aside(db: PostgresDb, conn: Conn) -> None:
    hand, claimed = await paused(db, holds_session=False, session_id="s")
    later = await submit(db, session_id="s")
    await hand.verbs.finish([failed(await hand.claim_one())])
    assert await hand.verbs.retry_ended(later) == "pending"
    assert row_of(conn, later)["held"] is None
    assert status(conn, claimed.run_id) == "paused"


async def test_a_paused_run_cannot_be_retried_and_a_cancelled_one_begins_anew(db: PostgresDb, conn: Conn) -> None:
    hand, claimed = await paused(db)
    with pytest.raises(UsageError, match=r"It waits for a person: pgrun\.approve\(run_id\)\."):
        await hand.verbs.retry_ended(claimed.run_id)
    await hand.verbs.cancel(claimed.run_id)
    await hand.verbs.retry_ended(claimed.run_id)
    row = row_of(conn, claimed.run_id)
    assert (row["status"], row["requirements"], row["begun"], row["paused_at"]) == ("pending", None, None, None)


async def test_the_views_tell_what_is_waited_for(db: PostgresDb, conn: Conn) -> None:
    _, claimed = await paused(db, REFUND, SHIP)
    conn.execute("update pgrun.jobs set started_at = now() - interval '1 h', paused_at = now() - interval '50 min'")
    row = conn.execute("select status, waits_for, duration from pgrun.runs").fetchone()
    assert row is not None
    assert (row["status"], row["waits_for"]) == ("paused", "confirmation of refund, confirmation of ship")
    assert row["duration"].total_seconds() == 600
    assert conn.execute("select depth, held, running, waiting_for_people from pgrun.queue_stats").fetchone() == {
        **{"depth": 0, "held": 0, "running": 0, "waiting_for_people": 1}
    }
    approve(conn, claimed.run_id)
    assert one(conn, "select waits_for from pgrun.runs") is None


async def test_a_step_that_has_begun_is_noted_until_its_end_is_recorded(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db, kind="agent")
    hand = await hire(db)
    claimed = await hand.claim_one()
    for number in (2, 3, 2):
        assert await hand.verbs.begin_step(claimed, number=number, name="refund", times=1)
    begun = row_of(conn, run_id)["begun"]
    assert {step: (call["name"], call["times"]) for step, call in begun.items()} == {
        "2": ("refund", 1),
        "3": ("refund", 1),
    }
    assert await hand.verbs.unfinished(run_id) == ([], {2: 1, 3: 1}, None)
    for number in (1, 2):
        facts: dict[str, Any] = {"kind": "tool_call", "name": "refund", "data": {}, "duration": 0.1, "metrics": None}
        assert await hand.verbs.record_step(claimed, number=number, **facts)
    assert await hand.verbs.unfinished(run_id) == ([], {3: 1}, None)
    await hand.verbs.release([(run_id, claimed.fence)])
    assert not await hand.verbs.begin_step(claimed, number=4, name="refund", times=1)
    assert [*row_of(conn, run_id)["begun"]] == ["3"]


async def test_requirements_are_kept_as_they_were_written(db: PostgresDb, conn: Conn) -> None:
    wild = {**REFUND, "arguments": {"text": 'it\'s "so"\n%s ☃', "none": None}}
    _, claimed = await paused(db, wild)
    assert one(conn, "select requirements = %s from pgrun.jobs", Jsonb([wild]))
    approve(conn, claimed.run_id, ", note => %s", "it's ☃")
    assert row_of(conn, claimed.run_id)["requirements"][0]["arguments"] == wild["arguments"]


@pytest.mark.slow
async def test_many_who_decide_on_many_calls_at_once_make_each_run_go_on_once(
    db: PostgresDb, conn: Conn, dsn: str, ear: Ear
) -> None:
    calls = [{**REFUND, "step": number, "call_id": f"call_{number}"} for number in range(3)]
    runs, people = 20, 6
    for _ in range(runs):
        await submit(db)
    hand = await hire(db)
    claimed = await hand.claim()
    for each in claimed:
        await pause(hand, each, *calls)
    ear.heard()
    together = Barrier(people, timeout=10)

    def decide(own: Conn, seed: int) -> int:
        """How many runs went on by this person's word, or had before."""
        todo = [(run.run_id, call["call_id"]) for run in claimed for call in calls]
        random.Random(seed).shuffle(todo)
        together.wait()
        return sum(approve(own, run_id, ", %s", call_id) == "pending" for run_id, call_id in todo)

    with crew(dsn) as threads:
        went_on = [thread.result() for thread in [threads.start(decide, seed) for seed in range(people)]]
    assert max(went_on) >= 1
    assert ear.heard() == [("wake", "default")] * runs
    rows = conn.execute("select status, requirements from pgrun.jobs").fetchall()
    assert {row["status"] for row in rows} == {"pending"}
    assert all(each["approved"] for row in rows for each in row["requirements"])
    assert {run.fence for run in await hand.claim()} == {2}
