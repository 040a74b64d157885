"""Schedules: each tick is one run, whoever looks and however often; what pauses, misses and mistakes make of it."""

import json
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from threading import Barrier

from support.crew import crew
from support.database import Conn
from support.rows import clock
from support.scheduling import HOUR, Look, row, set_next, ticks
from support.settings import FAST
from support.tables import one, perform
from support.until import Heard, until, until_heard

from pgrun import PostgresDb, Task, Worker
from pgrun.db.statements import statement
from pgrun.schedule import Missed


def hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


async def test_a_tick_submits_one_run_which_says_where_it_comes_from(
    db: PostgresDb, conn: Conn, look: Look, note: Task[[str], None]
) -> None:
    await db.aschedule(note.options(priority=3, metadata={"a": 1}), {"text": "hi"}, every=3600, name="hourly")
    assert await look() < 1
    tick = row(conn, "hourly")["next_at"]
    assert tick == hour_of(clock(conn)) + HOUR
    set_next(conn, tick - HOUR, "hourly")
    await look()
    await look()
    (run,) = conn.execute("select * from pgrun.jobs").fetchall()
    assert (run["kind"], run["name"], run["input"], run["priority"]) == ("task", "note", {"text": "hi"}, 3)
    assert (run["max_attempts"], run["due_at"], run["session_id"]) == (5, tick - HOUR, None)
    assert run["metadata"] == {"a": 1, "schedule": "hourly", "tick": f"{tick - HOUR:%Y-%m-%dT%H:%M:%S.%fZ}"}
    after = row(conn, "hourly")
    assert (after["next_at"], after["last_at"], after["last_run_id"]) == (tick, tick - HOUR, run["run_id"])


async def test_workers_fire_each_tick_once_and_soon(db: PostgresDb, conn: Conn, note: Task[[str], None]) -> None:
    db.settings = replace(FAST, poll_interval=60.0)  # so that nobody comes by without having been told
    async with AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(Worker(db, concurrency=4))
        await db.aschedule(note, every=0.3, missed="all")
        await until(lambda: one(conn, "select count(*) from pgrun.jobs where status = 'completed'") >= 12)
        await db.aunschedule("note")
    found = ticks(conn)
    assert found == [found[0] + n * timedelta(seconds=0.3) for n in range(len(found))]
    late = "select percentile_cont(0.5) within group (order by started_at - due_at) from pgrun.jobs"
    assert one(conn, late) < timedelta(seconds=0.3)  # of eight workers on one event loop; alone it is some milliseconds


async def test_of_many_that_fire_a_tick_at_the_same_moment_one_does(
    db: PostgresDb, conn: Conn, dsn: str, look: Look, note: Task[[str], None]
) -> None:
    await db.aschedule(note, every=3600)
    await look()
    tick = row(conn)["next_at"]
    together = Barrier(4, timeout=10)

    def fire(own: Conn, number: int) -> int:
        at = tick - number * HOUR
        params = {"schedule": "note", "expected": at.isoformat(), "ticks": [at], "next_at": tick.isoformat()}
        changed_at = row(own)["changed_at"]
        together.wait()
        return len(perform(own, "fire_schedule", **params, changed_at=changed_at))

    with crew(dsn) as threads:
        for number in range(1, 21):
            set_next(conn, tick - number * HOUR)
            assert sum(thread.result() for thread in [threads.start(fire, number) for _ in range(4)]) == 1
    assert ticks(conn) == [tick - number * HOUR for number in range(20, 0, -1)]


async def test_a_tick_that_is_fired_again_by_mistake_submits_nothing(
    db: PostgresDb, conn: Conn, look: Look, note: Task[[str], None]
) -> None:
    """As after a restore of an older state of the schedule."""
    await db.aschedule(note, every=3600)
    await look()
    tick = row(conn)["next_at"] - HOUR
    for _ in range(2):
        set_next(conn, tick)
        await look()
    assert ticks(conn) == [tick]


async def test_ticks_while_no_worker_lived_are_fired_as_missed_says(
    db: PostgresDb, conn: Conn, look: Look, note: Task[[str], None]
) -> None:
    minute = (clock(conn) - timedelta(minutes=3)).minute  # the last of them is more than a minute late
    expected: list[tuple[Missed, int]] = [("skip", 0), ("once", 1), ("all", 5)]
    for missed, fired in expected:
        await db.aschedule(note, name=missed, cron=f"{minute} * * * *", missed=missed)
        await look()
        set_next(conn, row(conn, missed)["next_at"] - 5 * HOUR, missed)
        await look()
        assert len(ticks(conn, missed)) == fired
        assert row(conn, missed)["next_at"] > clock(conn)
        assert row(conn, missed)["last_at"] == (ticks(conn, missed)[-1] if fired else None)


async def test_the_ticks_since_it_was_added_count_although_no_worker_lived(
    db: PostgresDb, conn: Conn, look: Look, note: Task[[str], None]
) -> None:
    await db.aschedule(note, every=3600, missed="all")
    conn.execute("update pgrun.schedules set changed_at = now() - interval '2 h 1 s'")
    await look()
    await look()
    assert len(ticks(conn)) in (2, 3)


async def test_a_pause_fires_nothing_and_its_ticks_are_gone(
    db: PostgresDb, conn: Conn, look: Look, note: Task[[str], None]
) -> None:
    await db.aschedule(note, every=3600, missed="all")
    await look()
    tick = row(conn)["next_at"]
    await db.apause_schedule("note")
    set_next(conn, tick - 5 * HOUR)
    await look()
    await db.aschedule(note, every=1800, missed="all")  # a change is no end of the pause
    await look()
    (paused,) = await db.aschedules()
    assert paused.paused_at
    assert paused.next_at is None
    await db.aresume_schedule("note")
    await look()
    assert row(conn)["next_at"] > clock(conn)
    assert ticks(conn) == []


async def test_a_moment_fires_once_and_ends(db: PostgresDb, conn: Conn, look: Look, note: Task[[str], None]) -> None:
    soon = clock(conn) + timedelta(hours=1)
    await db.aschedule(note, at=soon)
    await look()
    assert row(conn)["next_at"] == soon
    await db.aschedule(note, at=soon - timedelta(hours=2))  # has passed: nothing to wait for
    await look()
    assert row(conn)["ended_at"]
    assert ticks(conn) == []
    await db.aschedule(note, at=soon)
    await look()
    conn.execute("update pgrun.schedules set at = now() - interval '1 s', changed_at = now() - interval '1 h'")
    conn.execute("update pgrun.schedules set changed_at = now() - interval '1 h'")
    await look()
    await look()
    (ended,) = await db.aschedules()
    assert ended.ended_at
    assert (ended.last_at, ended.next_at, ended.last_status) == (ended.at, None, "pending")


async def test_a_run_that_cannot_be_submitted_is_told_in_the_row_and_stops_nobody_else(conn: Conn, look: Look) -> None:
    wrong = {"a": '{"priority": "high"}', "b": '{"max_attempts": 0}', "c": '{"multitask": "maybe"}'}
    for name, options in (wrong | {"fine": "{}"}).items():
        query = "insert into pgrun.schedules (schedule, name, every, options) values (%s, 'note', '1 h', %s)"
        conn.execute(query, [name, options])
    await look()
    tick = row(conn, "fine")["next_at"] - HOUR
    conn.execute("update pgrun.schedules set next_at = %s", [tick])
    await look()
    await look()
    assert ticks(conn, "fine") == [tick]
    for name in wrong:
        assert row(conn, name)["error"]
        assert ticks(conn, name) == []
    conn.execute("update pgrun.schedules set options = '{}' where error is not null")
    await look()
    assert [ticks(conn, name) for name in wrong] == [[tick]] * 3


async def test_runs_that_must_not_overlap_leave_ticks_out(
    db: PostgresDb, conn: Conn, look: Look, note: Task[[str], None]
) -> None:
    alone = note.options(session_id="alone", multitask="reject")
    await db.aschedule(alone, every=3600, missed="all")
    await look()
    tick = row(conn)["next_at"]
    for back in (6, 2, 1):
        set_next(conn, tick - back * HOUR)
        await look()
    assert len(ticks(conn)) == 1  # of the first six the last; then it is busy
    assert row(conn)["next_at"] == tick
    assert row(conn)["error"] is None


async def test_a_lost_notification_costs_a_poll(
    db: PostgresDb, conn: Conn, heard: Heard, note: Task[[str], None]
) -> None:
    deaf = PostgresDb(conn.info.dsn, worker="external", settings=replace(FAST, poll_interval=0.05))
    async with deaf, Worker(deaf):
        await until_heard(heard, "listening")
        conn.execute("alter table pgrun.schedules disable trigger user")
        conn.execute("insert into pgrun.schedules (schedule, name, every) values ('note', 'note', '0.1 s')")
        await until_heard(heard, "fired", schedule="note")


async def test_a_look_reads_no_more_than_it_must_among_many_that_wait(db: PostgresDb, conn: Conn, look: Look) -> None:
    conn.execute("alter table pgrun.schedules disable trigger user")
    conn.execute(
        "insert into pgrun.schedules (schedule, name, every, next_at) "
        "select n::text, 'note', '1 h', now() + make_interval(secs => n - 3) from generate_series(1, 5000) n"
    )
    conn.execute("analyze pgrun.schedules")
    query = f"explain (analyze, format json) {statement('look_at_schedules', 'pgrun')}"
    read = json.dumps(one(conn, query.replace("%(most)s", "100")))
    assert "Seq Scan" not in read
    assert "Rows Removed by Filter" not in read
    await look()
    assert one(conn, "select count(*) from pgrun.jobs") == 3


async def test_a_program_without_a_daemon_fires_what_it_has_added(dsn: str, conn: Conn) -> None:
    async with PostgresDb(dsn, settings=FAST) as alone:

        @alone.task
        async def note() -> None: ...

        await alone.aschedule(note, every=0.2)
        await until(lambda: one(conn, "select count(*) from pgrun.jobs where status = 'completed'"))
