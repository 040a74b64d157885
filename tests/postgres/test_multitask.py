"""What a run does that is submitted into a busy session: reject, interrupt, rollback, parallel; queueing up is the default."""

from typing import Any

import psycopg
import pytest
from support.blocking import rival
from support.crew import crew
from support.database import Conn
from support.ear import Ear
from support.hands import Hand, cancelled, completed, hire, submit
from support.models import ScriptedModel
from support.rows import row_of, rows_of
from support.tables import one, status

from pgrun import Agent, PostgresDb, SessionBusy, UsageError, Worker
from pgrun._ids import new_run_id


def states(conn: Conn, run_ids: list[str]) -> list[tuple[str, str | None, str | None]]:
    return [(row["status"], row["held"], row["superseded"]) for row in rows_of(conn, run_ids)]


async def pause(hand: Hand, *, holds_session: bool) -> None:
    """Claims the next run, which then waits for a person."""
    asked = {"kind": "confirmation", "step": 2, "call_id": "call_1", "name": "refund", "arguments": {}}
    claimed = await hand.claim_one()
    facts: dict[str, Any] = {"metrics": None, "tools": None}
    assert await hand.verbs.pause(claimed, [asked], holds_session=holds_session, **facts) == "paused"


def insert(conn: Conn, multitask: str, run_id: str = "", session_id: str = "s") -> str:
    run_id = run_id or new_run_id()
    conn.execute(
        "insert into pgrun.jobs (run_id, name, session_id, multitask) values (%s, 'noop', %s, %s) on conflict do nothing",
        [run_id, session_id, multitask],
    )
    return run_id


async def test_a_run_that_would_have_to_wait_is_rejected(db: PostgresDb, conn: Conn) -> None:
    first = await submit(db, session_id='a "b"')
    with pytest.raises(SessionBusy) as caught:
        await submit(db, session_id='a "b"', multitask="reject")
    assert (caught.value.session_id, caught.value.run_id) == ('a "b"', first)
    assert str(caught.value) == f'session "a "b"" is busy: its run {first} is pending'
    assert one(conn, "select count(*) from pgrun.jobs") == 1
    assert one(conn, "select last_seq from pgrun.sessions") == 1


async def test_in_an_idle_session_none_is_rejected(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    for _ in range(2):
        await submit(db, session_id="s", multitask="reject")
        await hand.complete(await hand.claim_one())
    assert one(conn, "select last_seq from pgrun.sessions") == 2


def test_of_many_that_are_to_be_rejected_one_gets_in(conn: Conn, dsn: str) -> None:
    def refusal(own: Conn) -> str | None:
        try:
            insert(own, "reject")
        except psycopg.Error as error:
            return error.sqlstate
        return "none"

    with crew(dsn) as threads:
        refusals = [each.result() for each in [threads.start(refusal) for _ in range(20)]]
    assert sorted(map(str, refusals)) == ["PGR03"] * 19 + ["none"]
    assert one(conn, "select count(*) from pgrun.jobs") == 1


@pytest.mark.parametrize("multitask", ["interrupt", "rollback"])
async def test_what_waits_is_cancelled_and_the_new_run_may_start(
    db: PostgresDb, conn: Conn, ear: Ear, multitask: str
) -> None:
    before = [await submit(db, session_id="s") for _ in range(3)]
    elsewhere = await submit(db, session_id="t")
    ear.heard()
    new = await submit(db, session_id="s", multitask=multitask)
    assert states(conn, before) == [("cancelled", None, multitask)] * 3
    assert states(conn, [new, elsewhere]) == [("pending", None, None)] * 2
    heard = ear.heard()
    assert sorted(told for told in heard if told[0] == "done") == sorted(("done", run_id) for run_id in before)
    assert [told for told in heard if told[0] == "wake"] == [("wake", "default")]
    assert {run.run_id for run in await (await hire(db)).claim()} == {new, elsewhere}


async def test_what_runs_is_asked_to_stop_and_the_new_run_waits_for_that(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    running, waiting = [await submit(db, session_id="s") for _ in range(2)]
    hand = await hire(db)
    claimed = await hand.claim_one()
    ear.heard()
    new = await submit(db, session_id="s", multitask="interrupt")
    later = await submit(db, session_id="s")
    assert states(conn, [running, waiting]) == [("running", None, "interrupt"), ("cancelled", None, "interrupt")]
    assert states(conn, [new, later]) == [("pending", "session", None)] * 2
    assert ("cancel", running) in ear.heard()
    await hand.verbs.finish([cancelled(claimed)])
    assert states(conn, [new, later]) == [("pending", None, None), ("pending", "session", None)]


async def test_what_a_dead_worker_holds_does_not_hold_up_who_interrupts_it(db: PostgresDb, conn: Conn) -> None:
    running = await submit(db, session_id="s")
    await (await hire(db)).claim_one()
    conn.execute("update pgrun.workers set lease_until = now() - interval '1 s'")
    new = await submit(db, session_id="s", multitask="interrupt")
    assert states(conn, [running, new]) == [("cancelled", None, "interrupt"), ("pending", None, None)]


async def test_one_who_interrupts_is_interrupted_too(db: PostgresDb, conn: Conn) -> None:
    run_ids = [await submit(db, session_id="s", multitask="interrupt") for _ in range(3)]
    assert [status(conn, run_id) for run_id in run_ids] == ["cancelled", "cancelled", "pending"]


async def test_a_run_that_ends_just_before_it_is_interrupted_has_completed(
    db: PostgresDb, conn: Conn, dsn: str
) -> None:
    await submit(db, session_id="s")
    hand = await hire(db)
    claimed = await hand.claim_one()
    with rival(dsn) as session:
        with conn.transaction():
            conn.execute("update pgrun.jobs set status = 'completed', finished_at = now(), output = '1'")
            new = session.call(insert, "rollback")
            session.until_blocked_by(conn)
        run_id = new.result()
    assert states(conn, [claimed.run_id, run_id]) == [("completed", None, None), ("pending", None, None)]


async def test_a_run_that_completes_in_spite_of_its_rollback_is_not_remembered(db: PostgresDb, conn: Conn) -> None:
    first = await submit(db, session_id="s", kind="agent", definition={})
    hand = await hire(db)
    claimed = await hand.claim_one()
    new = await submit(db, session_id="s", multitask="rollback", kind="agent", definition={})
    await hand.verbs.finish([completed(claimed, "too late")])
    assert states(conn, [first]) == [("completed", None, "rollback")]
    assert await hand.verbs.history("s", before=new, runs=5) == []


async def test_parallel_runs_neither_wait_nor_are_waited_for(db: PostgresDb, conn: Conn) -> None:
    first = await submit(db, session_id="s")
    beside = [await submit(db, session_id="s", multitask="parallel") for _ in range(2)]
    second = await submit(db, session_id="s")
    hand = await hire(db)
    claimed = {run.run_id: run for run in await hand.claim()}
    assert claimed.keys() == {first, *beside}
    await hand.complete(claimed[beside[0]])
    assert row_of(conn, second)["held"] == "session"
    await hand.complete(claimed[first])
    assert row_of(conn, second)["held"] is None  # although a parallel one still runs
    assert [row["session_seq"] for row in rows_of(conn, [first, *beside, second])] == [1, 2, 3, 4]


async def test_a_session_in_which_only_parallel_runs_are_open_is_not_busy(db: PostgresDb, conn: Conn) -> None:
    beside = await submit(db, session_id="s", multitask="parallel")
    interrupting = await submit(db, session_id="s", multitask="interrupt")
    assert states(conn, [beside, interrupting]) == [("pending", None, None)] * 2
    await (await db.connected()).verbs.cancel(interrupting)
    assert row_of(conn, await submit(db, session_id="s", multitask="reject"))["held"] is None


async def test_an_ended_parallel_run_that_is_retried_waits_for_nobody(db: PostgresDb, conn: Conn) -> None:
    beside = await submit(db, session_id="s", multitask="parallel")
    verbs = (await db.connected()).verbs
    await verbs.cancel(beside)
    await submit(db, session_id="s")
    assert await verbs.retry_ended(beside) == "pending"
    assert row_of(conn, beside)["held"] is None


async def test_a_paused_run_that_holds_its_session_is_in_the_way(db: PostgresDb, conn: Conn) -> None:
    paused, waiting = [await submit(db, session_id="s") for _ in range(2)]
    await pause(await hire(db), holds_session=True)
    with pytest.raises(SessionBusy):
        await submit(db, session_id="s", multitask="reject")
    new = await submit(db, session_id="s", multitask="interrupt")
    assert states(conn, [paused, waiting]) == [("cancelled", None, "interrupt")] * 2
    assert states(conn, [new]) == [("pending", None, None)]


async def test_one_that_has_stepped_aside_is_not_in_the_way_until_it_goes_on(db: PostgresDb, conn: Conn) -> None:
    paused = await submit(db, session_id="s")
    hand = await hire(db)
    await pause(hand, holds_session=False)
    open_now = await submit(db, session_id="s", multitask="reject")
    running = await hand.claim_one()
    assert running.run_id == open_now
    assert one(conn, "select pgrun.approve(%s)", paused) == "pending"
    assert states(conn, [paused]) == [("pending", "session", None)]
    new = await submit(db, session_id="s", multitask="interrupt")
    assert states(conn, [paused, open_now]) == [("cancelled", None, "interrupt"), ("running", None, "interrupt")]
    await hand.verbs.finish([cancelled(running)])
    assert [run.run_id for run in await hand.claim()] == [new]


async def test_a_parallel_run_that_is_paused_waits_for_nobody_but_people(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    beside = await submit(db, session_id="s", multitask="parallel")
    hand = await hire(db)
    await pause(hand, holds_session=False)
    first, second = [await submit(db, session_id="s") for _ in range(2)]
    assert states(conn, [beside, first, second]) == [
        ("paused", None, None),
        ("pending", None, None),
        ("pending", "session", None),
    ]
    ear.heard()
    assert one(conn, "select pgrun.approve(%s)", beside) == "pending"
    assert ear.heard() == [("wake", "default")]
    assert {run.run_id for run in await hand.claim()} == {beside, first}


async def test_with_a_parked_run_those_are_cancelled_that_it_has_started(db: PostgresDb, conn: Conn) -> None:
    parent = await submit(db, kind="agent", definition={}, session_id="s")
    hand = await hire(db)
    claimed = await hand.claim_one()
    child = await submit(db, parent_run_id=parent)
    assert await hand.verbs.park(claimed, metrics=None)
    with pytest.raises(SessionBusy):
        await submit(db, session_id="s", multitask="reject")
    new = await submit(db, session_id="s", multitask="interrupt")
    assert [state for state, _, _ in states(conn, [parent, child, new])] == ["cancelled", "cancelled", "pending"]
    assert [run.run_id for run in await hand.claim()] == [new]


@pytest.mark.parametrize("multitask", ["reject", "interrupt", "rollback"])
async def test_a_submission_that_is_repeated_does_not_meet_itself(
    db: PostgresDb, conn: Conn, dsn: str, multitask: str
) -> None:
    run_id = new_run_id()
    with rival(dsn) as session:
        with conn.transaction():
            insert(conn, multitask, run_id)
            again = session.call(insert, multitask, run_id)  # after a connection that broke before the answer
            session.until_blocked_by(conn)
        assert again.result() == run_id
    insert(conn, multitask, run_id)
    assert states(conn, [run_id]) == [("pending", None, None)]


def test_many_who_interrupt_at_once_leave_one_open_run(conn: Conn, dsn: str) -> None:
    def interrupt(own: Conn, number: int) -> None:
        for turn in range(10):
            insert(own, ["interrupt", "rollback"][(number + turn) % 2])

    with crew(dsn) as threads:
        for each in [threads.start(interrupt, number) for number in range(8)]:
            each.result()
    rows = conn.execute("select status, held, count(*) as n from pgrun.jobs group by 1, 2 order by 1").fetchall()
    assert [(row["status"], row["held"], row["n"]) for row in rows] == [("cancelled", None, 79), ("pending", None, 1)]
    assert one(conn, "select session_seq from pgrun.jobs where status = 'pending'") == 80


async def test_an_agent_says_it_for_its_runs_and_a_run_for_itself(db: PostgresDb, conn: Conn) -> None:
    agent = Agent(name="Curt", model=ScriptedModel(), multitask="reject", db=db)
    first = await agent.arun("1", session_id="s", background=True)
    for background in (True, False):
        with pytest.raises(SessionBusy):
            await agent.arun("2", session_id="s", background=background)
    second = await agent.arun("3", session_id="s", background=True, multitask="enqueue")
    assert [row["held"] for row in rows_of(conn, [first.run_id, second.run_id])] == [None, "session"]
    third = await agent.arun("4", session_id="s", background=True, multitask="interrupt")
    assert [row["status"] for row in rows_of(conn, [first.run_id, second.run_id, third.run_id])] == [
        *("cancelled", "cancelled", "pending")
    ]


async def test_a_task_says_it_in_its_options(db: PostgresDb, conn: Conn) -> None:
    @db.task
    async def wait_here() -> None: ...

    await wait_here.options(session_id="s").asubmit()
    with pytest.raises(SessionBusy):
        await wait_here.options(session_id="s", multitask="reject").asubmit()
    run = await wait_here.options(session_id="s", multitask="interrupt").asubmit()
    async with Worker(db):
        await run.aresult(timeout=10)
    assert one(conn, "select array_agg(status order by session_seq) from pgrun.jobs") == ["cancelled", "completed"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"multitask": "parallel"}, "multitask='parallel' needs session_id="),
        ({"multitask": "never", "session_id": "s"}, "multitask='never' is none of enqueue, reject, interrupt"),
    ],
)
async def test_what_cannot_be_is_refused(db: PostgresDb, options: Any, says: str) -> None:
    @db.task
    async def nothing() -> None: ...

    with pytest.raises(UsageError, match=says):
        nothing.options(**options)
    with pytest.raises(UsageError, match="multitask= is for one run"):
        await nothing.options(session_id="s", multitask="parallel").asubmit_many([{}])


async def test_without_a_database_no_session_is_busy() -> None:
    with pytest.raises(UsageError, match="multitask= needs one"):
        await Agent(model=ScriptedModel("hi")).arun("?", multitask="interrupt")


def test_sql_submits_into_a_busy_session_too(conn: Conn) -> None:
    for multitask in ("enqueue", "interrupt", "parallel"):
        conn.execute("select pgrun.submit('noop', '1', session_id => 's', multitask => %s)", [multitask])
    rows = conn.execute("select status, multitask from pgrun.jobs order by session_seq").fetchall()
    assert [(row["status"], row["multitask"]) for row in rows] == [
        *(("cancelled", None), ("pending", "interrupt"), ("pending", "parallel"))
    ]
    with pytest.raises(psycopg.Error, match='session "s" is busy'):
        conn.execute("select pgrun.submit('noop', '1', session_id => 's', multitask => 'reject')")
