"""submit_run.sql: what is inserted, what is not, and whether a daemon will execute it."""

from datetime import timedelta

import pytest
from psycopg.errors import CheckViolation
from support.database import Conn
from support.hands import a_run, hire, submit
from support.rows import row_of
from support.tables import one

from pgrun import PostgresDb, UsageError


async def test_a_run_is_inserted_once_however_often_it_is_submitted(db: PostgresDb, conn: Conn) -> None:
    run = a_run(input={"a": 1})
    first = await db.submit(run)
    again = await db.submit(run)
    assert first == row_of(conn, run.run_id)["created_at"]
    assert again is None
    assert one(conn, "select count(*) from pgrun.jobs") == 1


async def test_a_repeat_changes_neither_the_run_nor_the_numbers_of_its_session(db: PostgresDb, conn: Conn) -> None:
    run = a_run(session_id="s", input="first")
    await db.submit(run)
    before = row_of(conn, run.run_id)
    await db.submit(a_run(run_id=run.run_id, session_id="s", input="second"))
    assert row_of(conn, run.run_id) == before
    assert one(conn, "select last_seq from pgrun.sessions") == 1


async def test_a_repeat_after_a_lost_commit_finds_the_run_in_whatever_status_it_is(db: PostgresDb, conn: Conn) -> None:
    run = a_run()
    await db.submit(run)
    hand = await hire(db)
    await hand.complete(await hand.claim_one())
    assert await db.submit(run) is None
    assert row_of(conn, run.run_id)["status"] == "completed"


async def test_an_unknown_queue_is_refused_and_nothing_inserted(db: PostgresDb, conn: Conn) -> None:
    with pytest.raises(UsageError, match=r'unknown queue "nope".*insert into pgrun.queues'):
        await submit(db, queue="nope")
    assert one(conn, "select count(*) from pgrun.jobs") == 0


async def test_what_was_given_is_in_the_row(db: PostgresDb, conn: Conn) -> None:
    parent = await submit(db)
    given = {
        "kind": "agent",
        "name": "CityFacts",
        "session_id": "s",
        "session_table": "chats",
        "parent_run_id": parent,
        "priority": -3,
        "max_attempts": 2,
        "input": [{"role": "user", "content": 'It\'s 100 % \\ "ü"'}],
        "definition": {"model": {"id": "gpt-5-mini"}},
        "output_schema": {"type": "object"},
        "content_type": "Facts",
        "metadata": {"order": 7},
    }
    run = a_run(**given)
    await db.submit(run)
    row = row_of(conn, run.run_id)
    assert {name: row[name] for name in given} | {"parent_run_id": str(row["parent_run_id"])} == given
    assert (row["status"], row["held"], row["attempt"], row["fence"]) == ("pending", None, 0, 0)


async def test_what_was_not_given_is_null_and_not_empty(db: PostgresDb, conn: Conn) -> None:
    row = row_of(conn, await submit(db))
    for name in ("session_id", "session_table", "session_seq", "parent_run_id", "definition", "output_schema"):
        assert row[name] is None
    assert (row["content_type"], row["output"], row["error"], row["metadata"]) == (None, None, None, {})


async def test_a_delay_moves_the_moment_it_is_due_on_the_clock_of_the_database(db: PostgresDb, conn: Conn) -> None:
    row = row_of(conn, await submit(db, delay=90.5))
    assert row["due_at"] - row["created_at"] == timedelta(seconds=90.5)


def test_plain_sql_submits_thousands_in_one_statement(conn: Conn) -> None:
    conn.execute(
        "insert into pgrun.jobs (name, input, priority) "
        "select 'noop', jsonb_build_object('n', n), n % 3 from generate_series(1, 5000) n"
    )
    assert one(conn, "select count(distinct run_id) from pgrun.jobs where kind = 'task' and status = 'pending'") == 5000


def test_ids_made_by_the_database_are_uuids_of_version_7_and_sort_by_time(conn: Conn) -> None:
    ids = conn.execute("select pgrun.new_run_id() as id, pg_sleep(0.002) from generate_series(1, 20)").fetchall()
    uuids = [row["id"] for row in ids]
    assert all((uuid.version, uuid.variant) == (7, "specified in RFC 4122") for uuid in uuids)
    assert uuids == sorted(uuids)


@pytest.mark.parametrize(
    "columns",
    ["queue => ''", "name => ''", "kind => 'robot'", "status => 'done'", "max_attempts => 0", "session_id => ''"],
)
def test_a_row_that_cannot_be_is_refused(conn: Conn, columns: str) -> None:
    name, value = columns.split(" => ")
    given = {"name": "'noop'", "kind": "'task'"} | {name: value}
    with pytest.raises(CheckViolation):
        conn.execute(f"insert into pgrun.jobs ({', '.join(given)}) values ({', '.join(given.values())})".encode())
