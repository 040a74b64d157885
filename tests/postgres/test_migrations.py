"""The migrations: on an empty database, twice, at the same time, beside another schema, without rights, and halfway."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from threading import Barrier

import anyio
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from support.database import Conn
from support.ear import Ear
from support.hands import a_run, hire, submit
from support.schemas import contents
from support.tables import one

from pgrun import DatabaseError, PostgresDb, SchemaMismatch, UsageError
from pgrun.db.migrations import migrations, newest

_numbers = count()


@pytest.fixture
def empty(new_database: Callable[..., str]) -> str:
    """Conninfo of a database with nothing in it."""
    return new_database()


@pytest.fixture
def look(empty: str) -> Iterator[Conn]:
    """A person in psql, in the empty database."""
    with psycopg.connect(empty, autocommit=True, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture
def role(server: str, empty: str) -> Iterator[str]:
    """A role that may connect and nothing else; roles are the whole cluster's."""
    name = f"{psycopg.conninfo.conninfo_to_dict(empty)['dbname']}_role_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("create role {} login").format(sql.Identifier(name)))
        yield name
        with psycopg.connect(empty, autocommit=True) as inside:
            inside.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
        admin.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


async def migrate(dsn: str, schema: str = "pgrun") -> list[int]:
    """The numbers of the migrations that were applied."""
    return [migration.number for migration in await PostgresDb(dsn, schema=schema, worker="external").amigrate()]


async def use(dsn: str, *, schema: str = "pgrun", session_table: str = "sessions", create_schema: bool = True) -> None:
    async with PostgresDb(
        dsn, schema=schema, session_table=session_table, worker="external", create_schema=create_schema
    ):
        pass


EVERY = [migration.number for migration in migrations()]


def test_they_are_numbered_without_a_gap() -> None:
    assert [*range(1, newest() + 1)] == EVERY


async def test_all_are_applied_to_an_empty_database_and_none_the_second_time(empty: str, look: Conn) -> None:
    assert await migrate(empty) == EVERY
    applied = look.execute("select number, name from pgrun.migrations order by number").fetchall()
    assert [(row["number"], row["name"]) for row in applied] == [(each.number, each.name) for each in migrations()]
    before = contents(look, "pgrun")
    assert await migrate(empty) == []
    assert contents(look, "pgrun") == before


async def test_the_first_use_creates_the_schema(empty: str) -> None:
    async with PostgresDb(empty, worker="external") as db:
        assert await submit(db)
    assert await migrate(empty) == []


async def test_those_that_are_missing_are_applied_to_an_older_schema(empty: str, look: Conn) -> None:
    await migrate(empty)
    before = contents(look, "pgrun")
    look.execute("drop view pgrun.runs, pgrun.queue_stats, pgrun.worker_status, pgrun.failures, pgrun.usage_by_day")
    look.execute("drop view pgrun.usage_by_session, pgrun.usage_by_tree")
    look.execute("delete from pgrun.migrations where number = %s", [newest()])
    assert await migrate(empty) == [newest()]
    assert contents(look, "pgrun") == before


async def test_an_older_schema_is_refused_and_never_upgraded_by_using_it(empty: str, look: Conn) -> None:
    await migrate(empty)
    look.execute("delete from pgrun.migrations where number = %s", [newest()])
    text = rf'the schema "pgrun" is at version {newest() - 1}, this pgrun needs {newest()}\. Run: pgrun migrate$'
    with pytest.raises(SchemaMismatch, match=text):
        await use(empty)


async def test_a_newer_schema_is_refused_by_use_and_by_migration(empty: str, look: Conn) -> None:
    await migrate(empty)
    look.execute("insert into pgrun.migrations (number, name) values (9999, 'future')")
    for refused in (use, migrate):
        with pytest.raises(
            SchemaMismatch, match=rf"at version 9999, newer than this pgrun, which knows {newest()}\. Upgrade"
        ):
            await refused(empty)


async def test_a_missing_schema_is_not_created_where_that_is_not_wanted(empty: str, look: Conn) -> None:
    with pytest.raises(SchemaMismatch, match=r'the schema "pgrun" has no pgrun tables\. Run: pgrun migrate$'):
        await use(empty, create_schema=False)
    with pytest.raises(SchemaMismatch, match=r"Run: pgrun migrate --schema other$"):
        await use(empty, schema="other", create_schema=False)
    assert one(look, "select to_regnamespace('pgrun') is null")
    await migrate(empty)
    await use(empty, create_schema=False)


@pytest.mark.parametrize("many", [2, 8])
def test_threads_that_use_an_empty_database_at_the_same_time_all_succeed(empty: str, look: Conn, many: int) -> None:
    together = Barrier(many, timeout=10)

    def first_use() -> None:
        together.wait()
        anyio.run(partial(use, empty, session_table="chats"))

    with ThreadPoolExecutor(many) as threads:
        for future in [threads.submit(first_use) for _ in range(many)]:
            future.result()
    assert one(look, "select array_agg(number order by number) from pgrun.migrations") == EVERY
    assert one(look, "select count(*) from pgrun.chats") == 0


@pytest.mark.slow
@pytest.mark.parametrize("many", [2, 8])
def test_processes_that_migrate_an_empty_database_at_the_same_time_all_succeed(
    empty: str, look: Conn, many: int
) -> None:
    program = (
        "import sys, anyio; from pgrun import PostgresDb; db = PostgresDb(sys.argv[1], worker='external')\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(len(anyio.run(db.amigrate)))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, empty],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(many)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=15)[0] for process in processes]
    assert sorted(outputs) == sorted([f"{len(EVERY)}\n", *["0\n"] * (many - 1)])
    assert one(look, "select array_agg(number order by number) from pgrun.migrations") == EVERY


async def test_another_schema_beside_the_first_is_the_same_under_its_own_name(empty: str, look: Conn) -> None:
    assert await migrate(empty) == EVERY
    assert await migrate(empty, "other_runs") == EVERY
    first, second = contents(look, "pgrun"), contents(look, "other_runs")
    for part in first:
        assert first[part] == second[part], part
        assert first[part]


async def test_two_schemas_of_a_database_know_nothing_of_each_other(empty: str, look: Conn) -> None:
    async with (
        PostgresDb(empty, worker="external") as ours,
        PostgresDb(empty, schema="other", worker="external") as theirs,
    ):
        with Ear(empty) as our_ear, Ear(empty, "other") as their_ear:
            for _ in range(2):
                await submit(theirs, session_id="s")
            hand = await hire(theirs)
            claimed = await hand.claim_one()
            await hand.complete(claimed)
            assert (await hand.claim_one()).session_id == "s"
            await hand.verbs.cancel((await hand.verbs.list_runs(status="running"))[0]["run_id"])
            heard = their_ear.heard()
            assert [channel for channel, _ in heard] == ["wake", "done", "wake", "cancel"]
            assert our_ear.heard() == []
        assert await (await ours.connected()).verbs.list_runs() == []
        assert await (await ours.connected()).verbs.worker_status() == []
        with pytest.raises(UsageError, match=r"insert into other\.queues"):
            await theirs.submit(a_run(queue="nope"))
    assert one(look, "select count(*) from pgrun.jobs") == 0
    assert one(look, "select count(*) from other.jobs") == 2


async def test_a_session_table_may_be_called_like_the_first_schema(empty: str, look: Conn) -> None:
    async with PostgresDb(empty, schema="other", session_table="pgrun_chats", worker="external") as db:
        await submit(db, session_id="s", session_table=db.session_table)
    assert one(look, "select session_id from other.pgrun_chats") == "s"


@pytest.mark.parametrize(
    ("obstacle", "failing"),
    [("create table pgrun.workers (a int)", 1), ("create function pgrun._wake_workers() returns int return 1", 2)],
)
async def test_a_migration_that_fails_leaves_everything_as_it_was(
    empty: str, look: Conn, obstacle: str, failing: int
) -> None:
    look.execute("create schema pgrun")
    look.execute(obstacle.encode())
    before = contents(look, "pgrun")
    for refused in (migrate, use):
        with pytest.raises(
            DatabaseError, match=rf"migration {failing} \(\w+\) failed, nothing was changed: .*already exists"
        ):
            await refused(empty)
    assert contents(look, "pgrun") == before


async def test_a_role_that_may_not_create_is_told_what_to_do(empty: str, look: Conn, role: str) -> None:
    limited = make_conninfo(empty, user=role)
    for refused in (migrate, use):
        with pytest.raises(DatabaseError) as caught:
            await refused(limited)
        message = str(caught.value)
        assert f'the role "{role}" may not create the schema "pgrun"' in message
        assert "pgrun migrate --schema pgrun" in message
        assert f'grant create on database "{psycopg.conninfo.conninfo_to_dict(empty)["dbname"]}" to "{role}"' in message
    assert one(look, "select to_regnamespace('pgrun') is null")


async def test_a_role_needs_no_right_on_the_database_in_a_schema_of_its_own(empty: str, look: Conn, role: str) -> None:
    look.execute(sql.SQL("create schema pgrun authorization {}").format(sql.Identifier(role)))
    async with PostgresDb(make_conninfo(empty, user=role), worker="external") as db:
        await submit(db)
        hand = await hire(db)
        assert await hand.complete(await hand.claim_one())
    assert one(look, "select array_agg(number order by number) from pgrun.migrations") == EVERY


async def test_a_role_without_rights_on_the_schema_is_told_so(empty: str, role: str) -> None:
    await migrate(empty)
    with pytest.raises(DatabaseError, match="permission denied for schema pgrun"):
        await use(make_conninfo(empty, user=role))
