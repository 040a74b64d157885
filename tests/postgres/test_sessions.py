"""The rule of sessions: their runs execute in order, one at a time, whatever ends the open one."""

import time
from collections.abc import Awaitable, Callable

import pytest
from support.blocking import rival
from support.database import Conn
from support.ear import Ear
from support.hands import Hand, a_run, failed, hire, lose, submit
from support.rows import row_of, rows_of
from support.tables import finish, one, perform, status

from pgrun import PostgresDb
from pgrun._ids import new_run_id


def held(conn: Conn, run_ids: list[str]) -> list[str | None]:
    return [row["held"] for row in rows_of(conn, run_ids)]


async def test_runs_are_numbered_from_1_in_the_order_of_submission(db: PostgresDb, conn: Conn) -> None:
    ours = [await submit(db, session_id="s") for _ in range(4)]
    theirs = await submit(db, session_id="t")
    assert [row["session_seq"] for row in rows_of(conn, ours)] == [1, 2, 3, 4]
    assert row_of(conn, theirs)["session_seq"] == 1
    assert one(conn, "select last_seq from pgrun.sessions where session_id = 's'") == 4


async def test_the_second_is_held_while_the_first_is_open(db: PostgresDb, conn: Conn) -> None:
    run_ids = [await submit(db, session_id="s") for _ in range(3)]
    assert held(conn, run_ids) == [None, "session", "session"]


async def test_a_session_whose_runs_have_all_ended_holds_nothing(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    for _ in range(2):
        await submit(db, session_id="s")
        await hand.complete(await hand.claim_one())
    assert held(conn, [await submit(db, session_id="s")]) == [None]


async def test_a_delayed_run_holds_those_behind_it(db: PostgresDb, conn: Conn) -> None:
    delayed, second = await submit(db, session_id="s", delay=600), await submit(db, session_id="s")
    assert held(conn, [delayed, second]) == [None, "session"]
    assert await (await hire(db)).claim() == []


async def complete(conn: Conn, hand: Hand) -> None:
    await hand.complete(await hand.claim_one())


async def fail(conn: Conn, hand: Hand) -> None:
    await hand.verbs.finish([failed(await hand.claim_one())])


async def cancel_pending(conn: Conn, hand: Hand) -> None:
    head = one(conn, "select run_id from pgrun.jobs where session_seq = 1")
    assert await hand.verbs.cancel(head) == "cancelled"


async def cancel_running(conn: Conn, hand: Hand) -> None:
    claimed = await hand.claim_one()
    await hand.verbs.cancel(claimed.run_id)
    assert await hand.verbs.release([(claimed.run_id, claimed.fence)]) == {claimed.run_id}


async def delete(conn: Conn, hand: Hand) -> None:
    conn.execute("delete from pgrun.jobs where session_seq = 1")


async def die(conn: Conn, hand: Hand) -> None:
    await hand.claim_one()
    conn.execute("update pgrun.jobs set max_attempts = 1")
    lose(conn, hand)
    perform(conn, "rescue_runs", worker_id="00000000-0000-0000-0000-000000000000")


async def leave(conn: Conn, hand: Hand) -> None:
    claimed = await hand.claim_one()
    await hand.verbs.cancel(claimed.run_id)
    await hand.verbs.stop_worker(hand.worker_id)


@pytest.mark.parametrize("end", [complete, fail, cancel_pending, cancel_running, delete, die, leave])
async def test_exactly_the_next_run_may_start_when_the_open_one_ends(
    db: PostgresDb, conn: Conn, ear: Ear, end: Callable[[Conn, Hand], Awaitable[None]]
) -> None:
    _, second, third = [await submit(db, session_id="s") for _ in range(3)]
    hand = await hire(db)
    ear.heard()
    await end(conn, hand)
    assert held(conn, [second, third]) == [None, "session"]
    assert [told for told in ear.heard() if told[0] == "wake"] == [("wake", "default")]
    assert [run.run_id for run in await (await hire(db)).claim()] == [second]


async def test_a_run_that_ends_without_successor_wakes_nobody(db: PostgresDb, ear: Ear) -> None:
    run_id = await submit(db, session_id="s")
    hand = await hire(db)
    ear.heard()
    await hand.complete(await hand.claim_one())
    assert ear.heard() == [("done", run_id)]


async def test_a_batch_opens_each_of_its_sessions(db: PostgresDb, conn: Conn) -> None:
    firsts = [await submit(db, session_id=f"s{n}") for n in range(20)]
    seconds = [await submit(db, session_id=f"s{n}") for n in range(20)]
    hand = await hire(db)
    assert await hand.complete(*await hand.claim()) == {*firsts}
    assert held(conn, seconds) == [None] * 20


async def test_cancelling_or_deleting_a_held_run_opens_nothing(db: PostgresDb, conn: Conn) -> None:
    first, second, third, fourth = [await submit(db, session_id="s") for _ in range(4)]
    hand = await hire(db)
    await hand.verbs.cancel(second)
    conn.execute("delete from pgrun.jobs where run_id = %s", [third])
    assert held(conn, [first, fourth]) == [None, "session"]
    await hand.complete(await hand.claim_one())
    assert held(conn, [fourth]) == [None]  # those in between are passed over


@pytest.mark.parametrize("give_back", ["retry", "release", "rescue", "pause"])
async def test_an_open_run_that_does_not_end_keeps_the_others_waiting(
    db: PostgresDb, conn: Conn, give_back: str
) -> None:
    run_ids = [await submit(db, session_id="s") for _ in range(2)]
    hand, other = await hire(db), await hire(db)
    claimed = await hand.claim_one()
    match give_back:
        case "retry":
            await hand.verbs.retry(claimed, delay=0, error={}, metrics={})
        case "release":
            await hand.verbs.release([(claimed.run_id, claimed.fence)])
        case "rescue":
            lose(conn, hand)
            await other.verbs.rescue(other.worker_id)
        case "pause":
            conn.execute("update pgrun.jobs set status = 'paused' where run_id = %s", [claimed.run_id])
    assert held(conn, run_ids) == [None, "session"]
    await other.verbs.open_sessions()
    assert held(conn, run_ids) == [None, "session"]


def test_rows_of_one_statement_are_numbered_and_held_like_single_ones(conn: Conn) -> None:
    conn.execute(
        "insert into pgrun.jobs (name, session_id, input) "
        "select 'noop', case n % 2 when 0 then 'a' else 'b' end, to_jsonb(n) from generate_series(1, 10) n"
    )
    rows = conn.execute(
        "select session_id, session_seq, held, input from pgrun.jobs order by session_id, session_seq"
    ).fetchall()
    assert [row["session_seq"] for row in rows] == [1, 2, 3, 4, 5] * 2
    assert [row["input"] for row in rows] == [2, 4, 6, 8, 10, 1, 3, 5, 7, 9]
    assert [row["held"] for row in rows] == [None, *["session"] * 4] * 2


def test_deleting_a_whole_session_leaves_nothing_open(conn: Conn) -> None:
    conn.execute("insert into pgrun.jobs (name, session_id) select 'noop', 's' from generate_series(1, 10)")
    conn.execute("delete from pgrun.jobs where session_seq <= 4")
    assert one(conn, "select array_agg(session_seq) from pgrun.jobs where held is null") == [5]
    conn.execute("delete from pgrun.jobs")
    assert one(conn, "select count(*) from pgrun.jobs") == 0


async def test_a_submission_that_is_rolled_back_leaves_no_gap(db: PostgresDb, conn: Conn) -> None:
    await submit(db, session_id="s")
    with conn.transaction(force_rollback=True):
        conn.execute("insert into pgrun.jobs (name, session_id) values ('noop', 's')")
    assert row_of(conn, await submit(db, session_id="s"))["session_seq"] == 2


async def test_a_submission_waits_for_an_earlier_one_of_its_session_and_not_for_others(
    db: PostgresDb, conn: Conn, dsn: str
) -> None:
    with rival(dsn) as session:
        with conn.transaction():
            conn.execute("insert into pgrun.jobs (name, session_id) values ('noop', 's')")
            await submit(db, session_id="t")
            later = session.call(insert, "s")
            session.until_blocked_by(conn)
        row = row_of(conn, later.result())
    assert (row["session_seq"], row["held"]) == (2, "session")


async def test_a_submission_that_waits_for_the_end_of_the_open_run_is_not_held(
    db: PostgresDb, conn: Conn, dsn: str
) -> None:
    await submit(db, session_id="s")
    hand = await hire(db)
    claimed = await hand.claim_one()
    with rival(dsn) as session:
        with conn.transaction():
            assert finish(conn, claimed.run_id, claimed.fence)
            later = session.call(insert, "s")
            session.until_blocked_by(conn)
        assert held(conn, [later.result()]) == [None]


async def test_a_long_transaction_of_a_submitter_does_not_keep_a_worker_from_writing(
    db: PostgresDb, conn: Conn, ear: Ear
) -> None:
    run_id = await submit(db, session_id="s")
    hand = await hire(db)
    claimed = await hand.claim_one()
    with conn.transaction():
        second = insert(conn, "s")
        began = time.monotonic()
        assert await hand.complete(claimed) == {run_id}
        assert time.monotonic() - began < 1  # 0.1 s, on a machine that has nothing else to do
        await hand.verbs.open_sessions()  # nothing to see yet
        ear.heard()
    assert held(conn, [second]) == ["session"]  # and nothing else is open: this is what open_sessions is for
    ear.heard()
    await hand.verbs.open_sessions()
    assert held(conn, [second]) == [None]
    assert ear.heard() == [("wake", "default")]
    assert (await hand.claim_one()).run_id == second


async def test_open_sessions_opens_one_run_of_each_session_that_needs_it(db: PostgresDb, conn: Conn) -> None:
    conn.execute(
        "insert into pgrun.jobs (name, session_id) select 'noop', 's' || n % 5 from generate_series(1, 15) n;"
        "update pgrun.jobs set held = 'session' where session_id <> 's0'"
    )
    verbs = (await db.connected()).verbs
    for _ in range(2):
        await verbs.open_sessions()
        opened = conn.execute("select session_id, session_seq from pgrun.jobs where held is null order by 1").fetchall()
        assert [(row["session_id"], row["session_seq"]) for row in opened] == [(f"s{n}", 1) for n in range(5)]


async def test_open_sessions_gives_up_on_a_session_that_someone_has_locked(db: PostgresDb, conn: Conn) -> None:
    conn.execute(
        "insert into pgrun.jobs (name, session_id) select 'noop', 's' || n % 2 from generate_series(1, 4) n;"
        "update pgrun.jobs set held = 'session'"
    )
    verbs = (await db.connected()).verbs
    with conn.transaction():
        conn.execute("select from pgrun.sessions where session_id = 's0' for update")
        await verbs.open_sessions()
        assert one(conn, "select session_id from pgrun.jobs where held is null") == "s1"


async def test_two_who_open_a_session_at_once_let_one_run_start(conn: Conn, dsn: str) -> None:
    conn.execute(
        "insert into pgrun.jobs (name, session_id) select 'noop', 's' from generate_series(1, 3);"
        "update pgrun.jobs set held = 'session';"
        "alter function pgrun._open_session(text) set lock_timeout = '10s'"
    )
    with rival(dsn) as session:
        with conn.transaction():
            perform(conn, "open_sessions")
            second = session.perform("open_sessions")
            session.until_blocked_by(conn)
        second.result()
    assert one(conn, "select array_agg(session_seq) from pgrun.jobs where held is null") == [1]


async def test_an_ended_run_that_is_retried_waits_while_its_session_is_busy(db: PostgresDb, conn: Conn) -> None:
    first, second, third = [await submit(db, session_id="s") for _ in range(3)]
    hand = await hire(db)
    await hand.verbs.finish([failed(await hand.claim_one())])
    assert await hand.verbs.retry_ended(first) == "pending"
    assert held(conn, [first, second, third]) == ["session", None, "session"]
    await hand.complete(await hand.claim_one())
    assert held(conn, [first, third]) == [None, "session"]  # it is the earliest again
    assert [run.run_id for run in await hand.claim()] == [first]


async def test_an_ended_run_that_is_retried_in_an_idle_session_may_start(db: PostgresDb, conn: Conn) -> None:
    first = await submit(db, session_id="s")
    hand = await hire(db)
    await hand.verbs.finish([failed(await hand.claim_one())])
    assert await hand.verbs.retry_ended(first) == "pending"
    assert held(conn, [first]) == [None]
    assert held(conn, [await submit(db, session_id="s")]) == ["session"]


async def test_a_pending_run_is_retried_where_it_stands_in_its_session(db: PostgresDb, conn: Conn) -> None:
    first, second, third = [await submit(db, session_id="s", delay=60) for _ in range(3)]
    verbs = (await db.connected()).verbs
    for run_id in (third, second, first):
        await verbs.retry_ended(run_id)
        assert held(conn, [first, second, third]) == [None, "session", "session"]


async def test_the_sessions_of_one_database_object_are_in_the_view_it_names(
    db: PostgresDb, dsn: str, conn: Conn
) -> None:
    async with PostgresDb(dsn, worker="external", session_table="Chats") as chats:
        assert chats.session_table == "Chats"
        for _ in range(2):
            await submit(chats, session_id="s", session_table=chats.session_table)
        await submit(db, session_id="t", session_table="sessions")
        await submit(db, session_id="u")
    assert conn.execute('select session_id, runs from pgrun."Chats"').fetchall() == [{"session_id": "s", "runs": 2}]
    assert one(conn, "select count(*) from pgrun.sessions") == 3
    async with PostgresDb(dsn, worker="external", session_table="Chats") as again:  # the view is there
        assert await (await again.connected()).verbs.list_runs(session_id="s")


async def test_a_session_stays_in_the_view_of_who_started_it(db: PostgresDb, conn: Conn) -> None:
    await submit(db, session_id="s", session_table="first")
    await submit(db, session_id="s", session_table="second")
    assert one(conn, "select session_table from pgrun.sessions") == "first"


async def test_a_run_without_session_is_in_none(db: PostgresDb, conn: Conn) -> None:
    runs = [a_run() for _ in range(3)]
    for run in runs:
        await db.submit(run)
    assert held(conn, [run.run_id for run in runs]) == [None] * 3
    assert one(conn, "select count(*) from pgrun.sessions") == 0
    assert [status(conn, run.run_id) for run in runs] == ["pending"] * 3


def insert(conn: Conn, session_id: str) -> str:
    run_id = new_run_id()
    conn.execute("insert into pgrun.jobs (run_id, name, session_id) values (%s, 'noop', %s)", [run_id, session_id])
    return run_id
