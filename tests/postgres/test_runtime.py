"""Connections that break, do not come about, or hang: what is repeated, and what the caller hears."""

import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Thread

import anyio
import pytest
from psycopg.conninfo import make_conninfo
from support.database import Conn
from support.hands import a_run, hire, submit
from support.tables import one, status
from support.until import until

from pgrun import DatabaseError, DatabaseUnavailable, PostgresDb, SchemaMismatch, Settings, UsageError

OTHERS = (
    "from pg_stat_activity "
    "where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()"
)


def terminate_all(conn: Conn) -> int:
    """Ends every connection to this database but our own; how many."""
    conn.execute("select pg_stat_clear_snapshot()")
    return int(one(conn, f"select count(pg_terminate_backend(pid)) {OTHERS}"))


def blocked(conn: Conn) -> int:
    """How many connections to this database wait for a lock now: in a transaction, the view shows one moment only."""
    conn.execute("select pg_stat_clear_snapshot()")
    return int(one(conn, f"select count(*) {OTHERS} and wait_event_type = 'Lock'"))


async def test_a_connection_that_was_cut_while_idle_is_replaced_unnoticed(db: PostgresDb, conn: Conn) -> None:
    for number in range(1, 4):
        await submit(db)
        assert terminate_all(conn) > 0
        verbs = (await db.connected()).verbs
        assert len(await verbs.list_runs()) == number


async def test_statements_are_repeated_when_their_connections_are_cut_under_them(db: PostgresDb, conn: Conn) -> None:
    submitted: list[str] = []
    cuts = 0

    async def submit_some() -> None:
        submitted.extend([await submit(db) for _ in range(20)])

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(submit_some)
        for many in (20, 80, 140):
            await until(lambda: one(conn, "select count(*) from pgrun.jobs") >= many)  # noqa: B023
            cuts += terminate_all(conn)
    assert cuts > 0
    rows = conn.execute("select run_id from pgrun.jobs").fetchall()
    assert sorted(str(row["run_id"]) for row in rows) == sorted(submitted)
    assert len(submitted) == 200


async def test_a_statement_that_waits_for_a_lock_when_its_connection_is_cut_is_repeated(
    db: PostgresDb, conn: Conn
) -> None:
    run_id = await submit(db)
    verbs = (await db.connected()).verbs
    answers: list[str] = []

    async def cancel() -> None:
        answers.append(await verbs.cancel(run_id))

    async with anyio.create_task_group() as tasks:
        with conn.transaction():
            conn.execute("select from pgrun.jobs for update")
            tasks.start_soon(cancel)
            await until(lambda: blocked(conn))
            terminate_all(conn)
            await until(lambda: blocked(conn))
    assert answers == ["cancelled"]


async def test_a_cancelled_caller_leaves_when_its_statement_has_ended_and_not_before(
    db: PostgresDb, conn: Conn
) -> None:
    run = a_run(session_id="s")
    scope, left = anyio.CancelScope(), anyio.Event()

    async def submit_it() -> None:
        with scope:
            await db.submit(run)
            await anyio.lowlevel.checkpoint()
        left.set()

    async with anyio.create_task_group() as tasks:
        with conn.transaction():
            conn.execute("insert into pgrun.sessions (session_id) values ('s')")
            tasks.start_soon(submit_it)
            await until(lambda: blocked(conn))
            scope.cancel()
            await anyio.wait_all_tasks_blocked()
            assert not left.is_set()
            assert blocked(conn) == 1
    assert scope.cancelled_caught
    assert status(conn, run.run_id) == "pending"
    assert await db.submit(run) is None


async def test_a_statement_that_does_not_come_back_is_given_up_at_its_deadline(dsn: str, conn: Conn) -> None:
    settings = Settings(statement_timeout=0.3, reconnect_timeout=0.1)
    async with PostgresDb(dsn, worker="external", settings=settings) as db:
        run_id = await submit(db)
        verbs = (await db.connected()).verbs
        with conn.transaction():
            conn.execute("select from pgrun.jobs for update")
            began = time.monotonic()
            with pytest.raises(DatabaseUnavailable, match="is not available"):
                await verbs.cancel(run_id)
            assert 0.3 <= time.monotonic() - began < 5
        assert await verbs.get(run_id) is not None


async def test_the_goodbye_is_said_although_the_first_connection_is_cut(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    given_back: list[set[str]] = []
    run_id = await submit(db)
    await hand.claim_one()

    async def leave() -> None:
        given_back.append(await hand.verbs.stop_worker(hand.worker_id))

    async with anyio.create_task_group() as tasks:
        with conn.transaction():
            conn.execute("select from pgrun.jobs for update")
            tasks.start_soon(leave)
            await until(lambda: blocked(conn))
            terminate_all(conn)
    assert given_back == [{run_id}]


async def refused(dsn: str, error: type[Exception]) -> str:
    """What using a database raises, which must be at once and once more the same when it is tried again."""
    db = PostgresDb(dsn, worker="external")
    began = time.monotonic()
    with pytest.raises(error) as first:
        await db.connected()
    with pytest.raises(error) as second:
        await db.amigrate()
    assert type(first.value) is type(second.value) is error
    assert str(first.value) == str(second.value)
    assert time.monotonic() - began < 5
    return str(first.value)


async def test_an_unknown_database_is_a_mistake_and_no_outage(server: str) -> None:
    message = await refused(make_conninfo(server, dbname="no_such_database", password="s3cret"), DatabaseError)
    assert 'database "no_such_database"' in message
    assert "does not let us in" in message
    assert "does not exist" in message
    assert "s3cret" not in message


async def test_an_unknown_role_is_a_mistake_and_no_outage(server: str) -> None:
    message = await refused(make_conninfo(server, user="no_such_role"), DatabaseError)
    assert 'role "no_such_role" does not exist' in message


async def test_a_port_where_nobody_answers_is_an_outage() -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        message = await refused(f"postgresql://ai:s3cret@127.0.0.1:{port}/ai", DatabaseUnavailable)
    assert f'database "ai" at 127.0.0.1 port {port} as ai is not available' in message
    assert "refused" in message
    assert "s3cret" not in message


async def test_a_wrong_password_is_a_mistake_and_is_not_repeated() -> None:
    with server_that_refuses("28P01", 'password authentication failed for user "ai"') as (port, asked):
        message = await refused(f"postgresql://ai:s3cret@127.0.0.1:{port}/ai", DatabaseError)
        assert len(asked) == 2  # once by each
    assert "does not let us in" in message
    assert 'password authentication failed for user "ai"' in message
    assert "Check user, password and database" in message
    assert "s3cret" not in message


async def test_a_server_that_is_starting_is_an_outage() -> None:
    with server_that_refuses("57P03", "the database system is starting up") as (port, _):
        message = await refused(f"postgresql://ai:s3cret@127.0.0.1:{port}/ai", DatabaseUnavailable)
    assert "the database system is starting up" in message
    assert "s3cret" not in message


async def test_what_the_database_does_not_accept_is_a_mistake_of_the_caller(db: PostgresDb) -> None:
    verbs = (await db.connected()).verbs
    with pytest.raises(UsageError, match="does not accept a value"):
        await verbs.get("no uuid")
    with pytest.raises(UsageError, match="does not accept a value"):
        await submit(db, input="NUL \0")
    with pytest.raises(UsageError, match="does not accept a value"):
        await submit(db, name="NUL \0")


async def test_missing_tables_are_named_with_the_remedy(db: PostgresDb, conn: Conn) -> None:
    conn.execute("drop schema pgrun cascade")
    with pytest.raises(SchemaMismatch, match=r"does not exist\. Run: pgrun migrate$"):
        await submit(db)


async def test_a_database_that_is_closed_can_be_used_again(dsn: str, conn: Conn) -> None:
    db = PostgresDb(dsn, worker="external")
    for _ in range(2):
        await submit(db)
        await db.aclose()
        await db.aclose()
        await until(lambda: one(conn, f"select count(*) {OTHERS}") == 0)
    assert one(conn, "select count(*) from pgrun.jobs") == 2


def test_each_event_loop_has_a_pool_of_its_own(dsn: str, conn: Conn) -> None:
    db = PostgresDb(dsn, worker="external")

    async def use() -> None:
        await submit(db)
        await db.aclose()

    for _ in range(3):
        anyio.run(use)
    assert one(conn, "select count(*) from pgrun.jobs") == 3


async def test_a_pool_has_no_more_connections_than_set(dsn: str, conn: Conn) -> None:
    settings = Settings(pool_size=2)
    async with PostgresDb(dsn, worker="external", settings=settings) as db, anyio.create_task_group() as tasks:
        with conn.transaction():
            conn.execute("insert into pgrun.sessions (session_id) values ('s')")
            for _ in range(6):
                tasks.start_soon(db.submit, a_run(session_id="s"))
            await until(lambda: blocked(conn) == 2)
            assert one(conn, f"select count(*) {OTHERS}") == 2
    assert one(conn, "select count(*) from pgrun.jobs") == 6


@contextmanager
def server_that_refuses(code: str, message: str) -> Iterator[tuple[int, list[str]]]:
    """Speaks as much of the protocol as it takes to ask for a password and refuse it; its port, and an entry for each try."""
    tries: list[str] = []
    fields = {"S": "FATAL", "V": "FATAL", "C": code, "M": message}
    body = b"".join(f"{field}{text}\0".encode() for field, text in fields.items()) + b"\0"

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:  # closed
                return
            with client:
                while (length := int.from_bytes(client.recv(4))) == 8:  # asks for encryption
                    client.recv(4)
                    client.sendall(b"N")
                client.recv(length - 4)
                tries.append(code)
                client.sendall(b"R" + (8).to_bytes(4) + (3).to_bytes(4))
                client.recv(1000)
                client.sendall(b"E" + (len(body) + 4).to_bytes(4) + body)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = Thread(target=serve, args=[listening])
        thread.start()
        yield listening.getsockname()[1], tries
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()
