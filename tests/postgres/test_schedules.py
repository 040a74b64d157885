"""Schedules: each tick is one run, whoever looks and however often; what people do with them in code, in Python and in SQL."""

import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import psycopg
import pytest
from pydantic import BaseModel
from support.crew import crew
from support.database import Conn
from support.rows import Row, clock, row_of
from support.settings import FAST
from support.tables import one, perform
from support.until import Heard, until, until_heard

from pgrun import Agent, OpenAIResponses, PostgresDb, Schedule, Task, UsageError, Worker
from pgrun.db.declared import declared_schedules, write_declared
from pgrun.db.statements import statement
from pgrun.schedule import Missed
from pgrun.testing import ModelServer
from pgrun.worker.schedules import Schedules

Look = Callable[[], Awaitable[float]]
HOUR = timedelta(hours=1)


@pytest.fixture
def note(db: PostgresDb) -> Task[[str], None]:
    @db.task
    async def note(text: str = "") -> None: ...

    return note


@pytest.fixture
async def look(db: PostgresDb) -> Look:
    """Looks as a worker does: at what is new, and at what has come due."""
    return Schedules((await db.connected()).verbs, FAST).look


def row(conn: Conn, schedule: str = "note") -> Row:
    found = conn.execute("select * from pgrun.schedules where schedule = %s", [schedule]).fetchone()
    assert found
    return found


def ticks(conn: Conn, schedule: str = "note") -> list[datetime]:
    """Those for which there are runs."""
    query = "select (metadata ->> 'tick')::timestamptz as tick from pgrun.jobs where metadata ->> 'schedule' = %s order by tick"
    return [found["tick"] for found in conn.execute(query, [schedule]).fetchall()]


def set_next(conn: Conn, next_at: datetime, schedule: str = "note") -> None:
    """As if this tick had been the next for a long time."""
    query = "update pgrun.schedules set next_at = %s, changed_at = %s - interval '1 year' where schedule = %s"
    conn.execute(query, [next_at, next_at, schedule])


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
    async with AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(Worker(db, concurrency=4))
        await db.aschedule(note, every=0.1, missed="all")
        await until(lambda: one(conn, "select count(*) from pgrun.jobs where status = 'completed'") >= 12)
        await db.aunschedule("note")
    found = ticks(conn)
    assert found == [found[0] + n * timedelta(seconds=0.1) for n in range(len(found))]
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


async def test_a_worker_hears_of_what_is_added_and_changed_by_hand(db: PostgresDb, conn: Conn, heard: Heard) -> None:
    slow = PostgresDb(conn.info.dsn, worker="external", settings=replace(FAST, poll_interval=1000))

    @slow.task
    async def note() -> None: ...

    async with slow, Worker(slow):
        await until_heard(heard, "listening")
        conn.execute("insert into pgrun.schedules (schedule, name, cron) values ('note', 'note', '0 0 29 2 *')")
        await until(lambda: row(conn)["next_at"])
        conn.execute("update pgrun.schedules set cron = null, every = '0.1 s'")
        await until_heard(heard, "fired", schedule="note")
        conn.execute("update pgrun.schedules set cron = '0 0 29 2 *', every = null")
        await until(lambda: row(conn)["next_at"])
        assert row(conn)["next_at"].day == 29


async def test_a_wrong_expression_from_sql_is_told_in_its_row_and_can_be_corrected(conn: Conn, look: Look) -> None:
    conn.execute("select pgrun.schedule('note', 'note', cron => '0 25 * * *')")
    conn.execute("select pgrun.schedule('mars', 'note', cron => '0 5 * * *', timezone => 'Mars')")
    conn.execute("select pgrun.schedule('other', 'note', every => '1 h')")
    await look()
    assert "bad hour" in row(conn)["error"]
    assert "no such time zone" in row(conn, "mars")["error"]
    assert row(conn, "other")["next_at"]
    conn.execute("update pgrun.schedules set cron = '0 5 * * *', timezone = 'Asia/Tokyo' where error is not null")
    await look()
    for name in ("note", "mars"):
        assert (row(conn, name)["error"], row(conn, name)["next_at"].astimezone(UTC).hour) == (None, 20)


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


class Weather(BaseModel):
    sky: str


async def test_an_agent_is_asked_by_a_schedule_as_it_is_declared(
    db: PostgresDb, conn: Conn, models: ModelServer, heard: Heard
) -> None:
    models.always({"sky": "blue"})
    model = OpenAIResponses("m", base_url=models.base_url, api_key="test")
    agent = Agent(name="Weather", model=model, output_schema=Weather, db=db)
    async with Worker(db):
        db.declare_schedule(agent, "How is it?", every=0.2, name="w", user_id="ada", metadata={"k": 1})
        await write_declared(db, all_of_them=False)
        fired = await until_heard(heard, "fired", schedule="w")
        await db.aunschedule("w")
        await db.await_runs([fired["run_id"]], timeout=10)
    run = await agent.aget_run_output(fired["run_id"])
    assert run
    assert run.content == Weather(sky="blue")
    stored = row_of(conn, fired["run_id"])
    assert (stored["context"], stored["metadata"]["k"]) == ({"user_id": "ada"}, 1)
    assert stored["session_id"] == fired["run_id"]


async def test_what_code_declares_is_written_by_the_worker_and_changes_by_hand_stay_until_the_code_changes(
    db: PostgresDb, conn: Conn, note: Task[[str], None]
) -> None:
    db.declare_schedule(note, {"text": "a"}, cron="0 9 * * *", timezone="Europe/Berlin")
    assert await db.aschedules() == []
    async with Worker(db):
        await until(lambda: row(conn)["next_at"])
    conn.execute("update pgrun.schedules set cron = '0 10 * * *'")
    conn.execute("select pgrun.pause_schedule('note')")
    before = row(conn)
    await write_declared(db, all_of_them=True)
    assert row(conn) == before | {"declared_at": row(conn)["declared_at"]}
    assert row(conn)["declared_at"] > before["declared_at"]
    declared_schedules().clear()  # the next version of the code
    db.declare_schedule(note, {"text": "a"}, cron="0 11 * * *", timezone="Europe/Berlin")
    await write_declared(db, all_of_them=False)
    (written,) = await db.aschedules()
    assert (written.cron, written.input) == ("0 11 * * *", {"text": "a"})
    assert written.paused_at
    declared_schedules().clear()  # and one that has forgotten it
    await write_declared(db, all_of_them=True)
    assert [each.schedule for each in await db.aschedules()] == ["note"]


async def test_declaring_a_schedule_makes_its_queue_known(db: PostgresDb, conn: Conn) -> None:
    @db.task(queue="mail")
    async def send() -> None: ...

    db.declare_schedule(send, every=3600)
    await write_declared(db, all_of_them=True)
    assert one(conn, "select count(*) from pgrun.queues where queue = 'mail'") == 1


async def test_a_name_stands_for_one_declared_schedule(db: PostgresDb, note: Task[[str], None]) -> None:
    for _ in range(2):
        db.declare_schedule(note, every=60)
    with pytest.raises(UsageError, match='schedule "note" is declared already'):
        db.declare_schedule(note, every=61)


async def test_a_schedule_runs_what_is_known_elsewhere_by_its_name(db: PostgresDb, conn: Conn, look: Look) -> None:
    assert await db.aschedule("elsewhere", {"x": 1}, every=3600, name="mine", priority=2, session_id="s") == "mine"
    (found,) = await db.aschedules()
    assert isinstance(found, Schedule)
    assert (found.name, found.input, found.every) == ("elsewhere", {"x": 1}, HOUR)
    assert found.options == {"priority": 2, "session_id": "s"}
    conn.execute("insert into pgrun.agents (name, max_attempts) values ('elsewhere', 9)")
    run_id = await db.arun_schedule("mine")
    assert row_of(conn, run_id)["max_attempts"] == 9
    assert row_of(conn, run_id)["kind"] == "agent"


async def test_a_run_now_is_besides_the_ticks_and_repeats_nothing(
    db: PostgresDb, conn: Conn, look: Look, note: Task[[str], None]
) -> None:
    await db.aschedule(note, every=3600)
    await look()
    before = row(conn)
    run_id = await db.arun_schedule("note")
    assert str(one(conn, "select pgrun.run_schedule('note', %s)", run_id)) == run_id
    assert one(conn, "select count(*) from pgrun.jobs") == 1
    assert row(conn) == before


async def test_without_an_event_loop_there_are_sync_twins(dsn: str, note: Task[[str], None]) -> None:
    import anyio.to_thread

    def script() -> list[Any]:
        with PostgresDb(dsn, worker="external") as own:
            own.schedule(note, every=3600)
            own.pause_schedule("note")
            paused = own.schedules()[0].paused_at
            own.resume_schedule("note")
            return [paused is not None, own.schedules()[0].paused_at, own.unschedule("note"), own.unschedule("note")]

    assert await anyio.to_thread.run_sync(script) == [True, None, True, False]


REFUSED: list[tuple[str | None, Any, dict[str, Any], str]] = [
    (None, {"text": 7}, {"every": 60}, r"^note: "),
    (None, "text", {"every": 60}, "no keyword arguments"),
    (None, None, {"every": 60, "delay": 5}, "delay= is not for runs of a schedule"),
    (None, None, {"every": 60, "run_id": "01900000-0000-7000-8000-000000000000"}, "run_id= is for one run"),
    (None, None, {"every": "often"}, "every='often': seconds"),
    (None, None, {"every": 60, "missed": "never"}, "missed='never'"),
    (None, None, {"every": 60, "colour": "red"}, "no option colour="),
    ("elsewhere", None, {"every": 60, "colour": "red"}, "no option colour="),
    ("elsewhere", None, {"every": 60, "queue": "nope"}, 'unknown queue "nope"'),
    (None, None, {"cron": "* * * * *", "at": datetime(2030, 1, 1, tzinfo=UTC)}, "one of cron="),
]


async def test_what_cannot_be_is_refused_and_nothing_is_added(db: PostgresDb, note: Task[[str], None]) -> None:
    for target, given, options, message in REFUSED:
        with pytest.raises(UsageError, match=message):
            await db.aschedule(target or note, given, **options)
    assert await db.aschedules() == []


def test_in_sql_too(conn: Conn) -> None:
    for call in (
        "pgrun.schedule('s', 'n')",
        "pgrun.schedule('s', 'n', cron => '* * * * *', every => '1 h')",
        "pgrun.schedule('s', 'n', every => '1 h', missed => 'never')",
        "pgrun.schedule('s', 'n', every => '1 h', queue => 'nope')",
        """pgrun.schedule('s', 'n', every => '1 h', options => '{"colour": "red"}')""",
        "pgrun.pause_schedule('nope')",
        "pgrun.resume_schedule('nope')",
        "pgrun.run_schedule('nope')",
    ):
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(f"select {call}".encode())
        assert caught.value.sqlstate == "PGR02"
    for every in ("1 month", "0 s", "-1 s"):  # without a length, or too short
        with pytest.raises(psycopg.errors.CheckViolation):
            conn.execute("insert into pgrun.schedules (schedule, name, every) values ('s', 'n', %s)", [every])


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
