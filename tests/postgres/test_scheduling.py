"""Schedules as people write them, in code, in Python and in SQL: what is kept, what it makes of a run, and what is refused."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from pydantic import BaseModel
from support.database import Conn
from support.rows import row_of
from support.scheduling import HOUR, Look, row
from support.settings import FAST
from support.tables import one
from support.until import Heard, until, until_heard

from pgrun import Agent, OpenAIResponses, PostgresDb, Schedule, Task, UsageError, Worker
from pgrun.db.declared import declared_schedules, write_declared
from pgrun.testing import ModelServer


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
