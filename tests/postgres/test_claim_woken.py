"""claim_woken.sql: what a worker takes that has been woken for a queue, and when it has to look at everything all the same."""

from dataclasses import replace

import anyio
import psycopg
from support.database import Conn
from support.hands import Hand, hire, lose, submit
from support.rows import row_of
from support.settings import FAST
from support.tables import one
from support.until import Heard, until, until_heard

from pgrun import PostgresDb, Worker

PATIENT = replace(FAST, lease=10.0, poll_interval=60.0)  # whoever overlooks something waits for a minute

SOME = """
    insert into pgrun.jobs (name, input, queue, priority, due_at, status, held, session_id, definition, finished_at) values
    ('known', '1', 'default', 0, now(), 'pending', null, null, null, null),
    ('known', '2', 'default', -5, now() - interval '1 min', 'pending', null, null, null, null),
    ('known', '3', 'default', -5, now() - interval '2 min', 'pending', null, null, null, null),
    ('travels', '4', 'default', 7, now(), 'pending', null, null, '{}', null),
    ('unknown', '5', 'default', -9, now(), 'pending', null, null, null, null),
    ('known', '6', 'mail', 0, now(), 'pending', null, null, null, null),
    ('known', '7', 'default', 0, now() + interval '1 h', 'pending', null, null, null, null),
    ('known', '8', 'default', 0, now(), 'running', null, null, null, null),
    ('known', '9', 'default', 0, now(), 'paused', null, null, null, null),
    ('known', '10', 'default', 0, now(), 'completed', null, null, null, now())"""


async def hand_for(db: PostgresDb) -> Hand:
    return await hire(db, names=["known"])


async def test_it_takes_what_is_due_in_its_queue_and_known_to_it_in_order(db: PostgresDb, conn: Conn) -> None:
    conn.execute(SOME)
    hand = await hand_for(db)
    assert [run.input for run in await hand.claim_woken(3)] == ["3", "2", "1"]
    (last,) = await hand.claim_woken()
    assert (last.input, last.attempt, last.fence, last.queue) == ("4", 1, 1, "default")
    assert row_of(conn, last.run_id)["status"] == "running"
    assert await hand.claim_woken() == []


async def test_what_it_returns_is_what_the_other_claim_returns(db: PostgresDb, conn: Conn) -> None:
    hand = await hand_for(db)
    run_id = await submit(
        db, name="known", kind="agent", session_id="s", metadata={"a": 1}, output_schema={"type": "object"}, priority=3
    )
    (woken,) = await hand.claim_woken()
    conn.execute("update pgrun.jobs set status = 'pending', attempt = 0, fence = 0 where run_id = %s", [run_id])
    assert await hand.claim() == [woken]


async def test_a_worker_that_is_gone_and_a_queue_that_is_paused_get_nothing(db: PostgresDb, conn: Conn) -> None:
    conn.execute(SOME)
    hand = await hand_for(db)
    conn.execute("select pgrun.pause_queue('default')")
    assert await hand.claim_woken() == []
    conn.execute("update pgrun.queues set resume_at = now() - interval '1 s'")
    assert len(await hand.claim_woken(1)) == 1
    lose(conn, hand)
    await (await hire(db)).verbs.rescue((await hire(db)).worker_id)
    assert await hand.claim_woken() == []


async def test_it_does_not_wait_for_what_somebody_else_has_locked(db: PostgresDb, dsn: str, conn: Conn) -> None:
    conn.execute(SOME)
    hand = await hand_for(db)
    with psycopg.connect(dsn) as other:
        other.execute("select from pgrun.jobs where input = '3' for update")
        assert [run.input for run in await hand.claim_woken(2)] == ["2", "1"]


async def test_what_will_be_due_starts_on_time_although_something_due_came_with_it(
    dsn: str, conn: Conn, heard: Heard
) -> None:
    async with PostgresDb(dsn, worker="external", settings=PATIENT) as db:

        @db.task
        async def note(name: str) -> str:
            return name

        async with Worker(db):
            await until_heard(heard, "listening")
            await (await note.asubmit("warm")).aresult(timeout=5)
            with conn.transaction():
                now, later = (
                    one(
                        conn,
                        "insert into pgrun.jobs (name, input, due_at) values ('note', %s, now() + make_interval(secs => %s))"
                        " returning run_id",
                        '{"name": "x"}',
                        delay,
                    )
                    for delay in (0, 0.5)
                )
            ended = await until(
                lambda: row if (row := row_of(conn, str(later)))["finished_at"] else {}, within=3, shown="later"
            )
            assert row_of(conn, str(now))["status"] == "completed"
            assert (ended["started_at"] - ended["due_at"]).total_seconds() < 0.3


async def test_a_failed_attempt_is_repeated_on_time_although_others_keep_coming(dsn: str, conn: Conn) -> None:
    async with PostgresDb(dsn, worker="external", settings=PATIENT) as db:

        @db.task
        async def fails_once(name: str) -> str:
            if one(conn, "select attempt from pgrun.jobs where input->>'name' = 'first'") == 1 and name == "first":
                raise RuntimeError("once")
            return name

        async with Worker(db):
            run = await fails_once.asubmit("first")
            with anyio.move_on_after(5) as scope:
                async with anyio.create_task_group() as tasks:

                    async def others() -> None:
                        while True:
                            await (await fails_once.asubmit("other")).aresult()

                    tasks.start_soon(others)
                    assert await run.aresult(timeout=5) == "first"
                    tasks.cancel_scope.cancel()
            assert not scope.cancelled_caught
    row = row_of(conn, run.run_id)
    assert (row["started_at"] - row["due_at"]).total_seconds() < 0.3
