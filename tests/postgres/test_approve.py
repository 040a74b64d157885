"""pgrun.approve: what a person may decide of a paused run, what is refused, and that it goes on once, when all is decided."""

import json
import random
from threading import Barrier
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from support.blocking import rival
from support.crew import crew
from support.database import Conn
from support.ear import Ear
from support.hands import completed, failed, hire, submit
from support.pausing import REFUND, SHIP, approve, decided, pause, paused
from support.rows import row_of
from support.tables import one, perform, status

from pgrun import PostgresDb, UsageError

ADDRESS = {**REFUND, "kind": "user_input", "fields": [{"name": "street"}, {"name": "floor", "required": False}]}
ELSEWHERE = {**REFUND, "kind": "external"}
AGAIN = {**REFUND, "kind": "repeat", "times": 1}


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
