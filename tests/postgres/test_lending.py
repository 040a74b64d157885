"""``conn=``: a run is stored in the caller's own transaction, so that it is executed if that commits and never was if not."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest
from psycopg.rows import namedtuple_row
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from support.database import Conn
from support.ear import Ear
from support.settings import FAST
from support.tables import one
from support.until import until

from pgrun import Agent, DatabaseError, OpenAIResponses, PostgresDb, RunNotFound, Task, UsageError, Worker


@pytest.fixture
async def mine(dsn: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A connection as a program may have it: with names of its own first, and rows of another kind."""
    async with await psycopg.AsyncConnection.connect(dsn, row_factory=namedtuple_row) as conn:
        await conn.execute("create schema app; create table app.jobs (run_id int); create table app.orders (id int)")
        await conn.execute("set search_path to app")
        await conn.commit()
        yield conn


def url_of(dsn: str, driver: str = "postgresql+psycopg") -> URL:
    given: Any = psycopg.conninfo.conninfo_to_dict(dsn)
    query = {"host": given["host"], "port": given["port"]}
    return URL.create(
        driver, username=given.get("user"), password=given.get("password"), database=given["dbname"], query=query
    )


def count(conn: Conn) -> int:
    return int(one(conn, "select count(*) from pgrun.jobs"))


async def test_committed_it_is_woken_and_executed_and_awaited_as_usual(
    db: PostgresDb, conn: Conn, double: Task[[int], int], mine: psycopg.AsyncConnection[Any], ear: Ear
) -> None:
    async with Worker(db):
        async with mine.transaction():
            await mine.execute("insert into orders values (7)")
            run = await double.options(conn=mine).asubmit(21)
            runs = await double.options(conn=mine).asubmit_many([{"number": number} for number in range(3)])
            assert ear.heard() == []
            assert count(conn) == 0
        assert await run.aresult(timeout=10) == 42
        assert [await each.aresult(timeout=10) for each in runs] == [0, 2, 4]
    assert one(conn, "select count(*) from app.orders") == 1


async def test_rolled_back_it_never_was_and_nobody_is_woken(
    conn: Conn, double: Task[[int], int], mine: psycopg.AsyncConnection[Any], ear: Ear
) -> None:
    async with mine.transaction(force_rollback=True):
        run = await double.options(conn=mine, key="7").asubmit(21)
        again = await double.options(conn=mine, key="7").asubmit(21)
        assert (again.run_id, again.duplicate) == (run.run_id, True)
        await double.options(conn=mine).asubmit_many([{"number": 1}])
    assert ear.heard() == []
    assert count(conn) == 0
    with pytest.raises(RunNotFound):
        await again.aresult(timeout=10)


async def test_a_transaction_that_outlives_the_worker_s_promise_to_look_still_wakes_it(
    conn: Conn, double: Task[[int], int], mine: psycopg.AsyncConnection[Any], ear: Ear
) -> None:
    conn.execute(
        "insert into pgrun.workers (worker_id, mode, host, pid, version, queues, names, concurrency, lease, lease_until, "
        "awake_until) values (gen_random_uuid(), 'daemon', 'here', 1, '0', '{default}', '{double}', 1, '1 h', "
        "now() + interval '1 h', now() + interval '1 h')"
    )
    await double.asubmit(1)
    assert ear.heard() == []
    async with mine.transaction():
        await double.options(conn=mine).asubmit(1)
        await double.options(conn=mine, delay=60).asubmit(1)
    assert ear.heard() == [("wake", "default"), ("soon", "default")]


async def test_in_a_pipeline_and_in_autocommit_it_works_as_well(
    conn: Conn, double: Task[[int], int], mine: psycopg.AsyncConnection[Any]
) -> None:
    async with mine.pipeline():
        await mine.execute("insert into orders values (1)")
        run = await double.options(conn=mine).asubmit(1)
        await mine.execute("insert into orders values (2)")
        assert not run.duplicate
    await mine.rollback()
    assert count(conn) == 0
    await mine.set_autocommit(True)
    await double.options(conn=mine).asubmit(1)
    assert count(conn) == 1


async def test_agents_submit_into_it_too_in_the_background(
    db: PostgresDb, conn: Conn, mine: psycopg.AsyncConnection[Any]
) -> None:
    agent = Agent(name="Poet", model=OpenAIResponses("m", api_key="k"), db=db)
    first = await agent.arun("Rome", background=True, conn=mine, key="7")
    again = await agent.arun("Oslo", background=True, conn=mine, key="7")
    assert (first.duplicate, again.duplicate, again.run_id) == (False, True, first.run_id)
    assert count(conn) == 0
    await mine.commit()
    found = await agent.aget_run_output(first.run_id)
    assert found is not None
    assert (found.input, found.session_id) == ("Rome", first.session_id)
    with pytest.raises(UsageError, match="conn= is for background=True"):
        await agent.arun("Rome", conn=mine)
    with pytest.raises(UsageError, match="conn= is for background=True"):
        agent.arun("Rome", conn=mine, stream=True)


async def test_what_the_database_refuses_is_said_in_our_words_and_fails_their_transaction(
    db: PostgresDb, conn: Conn, double: Task[[int], int], mine: psycopg.AsyncConnection[Any]
) -> None:
    with pytest.raises(UsageError, match='unknown queue "mail"'):
        await double.options(conn=mine, queue="mail").asubmit(1)
    await mine.execute("insert into pgrun.queues (queue) values ('mail')")  # known in this transaction only
    await double.options(conn=mine, queue="mail").asubmit(1)
    await mine.rollback()
    with pytest.raises(UsageError, match='unknown queue "mail"'):
        await double.options(conn=mine, queue="mail").asubmit(1)
    conn.execute("alter table pgrun.jobs add constraint small check ((input ->> 'number')::int < 9)")
    with pytest.raises(DatabaseError, match="small"):
        await double.options(conn=mine).asubmit(10)
    assert mine.info.transaction_status.name == "INERROR"
    await mine.rollback()


async def test_a_caller_that_is_cancelled_keeps_its_connection(
    conn: Conn, double: Task[[int], int], mine: psycopg.AsyncConnection[Any]
) -> None:
    async with anyio.create_task_group() as tasks:
        with conn.transaction():
            conn.execute("lock table pgrun.jobs in exclusive mode")
            tasks.start_soon(double.options(conn=mine).asubmit, 1)
            waits = "select exists (select from pg_stat_activity where pid = %s and wait_event_type = 'Lock')"
            with psycopg.connect(conn.info.dsn, autocommit=True, row_factory=psycopg.rows.dict_row) as look:
                await until(lambda: one(look, waits, mine.info.backend_pid))
            tasks.cancel_scope.cancel()
    await mine.rollback()
    assert (await (await mine.execute("select 1")).fetchone()) == (1,)
    assert count(conn) == 0


async def test_sessions_and_connections_of_sqlalchemy(dsn: str, conn: Conn, double: Task[[int], int]) -> None:
    engine = create_async_engine(url_of(dsn))
    async with AsyncSession(engine) as session:
        await double.options(conn=session).asubmit(1)
        assert count(conn) == 0
        await session.rollback()
        await session.execute(text("create table public.orders (id int)"))
        first = await double.options(conn=session, key="7").asubmit(1)
        assert (await double.options(conn=session, key="7").asubmit(1)).run_id == first.run_id
        await session.commit()
    assert count(conn) == 1
    async with engine.connect() as connection:
        await double.options(conn=connection).asubmit(2)  # its first statement, and it knows that there is one
        await connection.commit()
        assert count(conn) == 2
        await double.options(conn=connection).asubmit_many([{"number": 3}])
        await connection.rollback()
    assert count(conn) == 2
    with pytest.raises(UsageError, match=r"registry of sessions; give the session itself"):
        await double.options(conn=async_scoped_session(async_sessionmaker(engine), lambda: 1)).asubmit(1)
    await engine.dispose()


def test_sync_code_lends_sync_connections(dsn: str, conn: Conn) -> None:
    db = PostgresDb(dsn, worker="external", settings=FAST)

    @db.task
    def double(number: int) -> int:
        return 2 * number

    agent = Agent(name="Poet", model=OpenAIResponses("m", api_key="k"), db=db)
    engine = create_engine(url_of(dsn))
    try:
        with psycopg.connect(dsn) as own:
            double.options(conn=own).submit(1)
            own.rollback()
            run = double.options(conn=own).submit(1)
            agent.run("Rome", background=True, conn=own)
            assert (count(conn), run.duplicate) == (0, False)
        assert count(conn) == 2
        with Session(engine) as session:
            double.options(conn=session).submit_many([{"number": 1}, {"number": 2}])
            assert count(conn) == 2
            session.commit()
            double.options(conn=session).submit(1)
        assert count(conn) == 4
        with engine.begin() as connection:
            double.options(conn=connection).submit(1)
        assert count(conn) == 5
        with pytest.raises(UsageError, match="give the session itself"):
            double.options(conn=scoped_session(sessionmaker(engine))).submit(1)
        with (
            create_engine("sqlite://").connect() as elsewhere,
            pytest.raises(UsageError, match=r"conn= is of sqlite\+pysqlite; give .*postgresql\+psycopg"),
        ):
            double.options(conn=elsewhere).submit(1)
    finally:
        engine.dispose()
        db.close()


async def test_the_wrong_kind_of_connection_is_refused_with_what_to_use(
    dsn: str, conn: Conn, double: Task[[int], int], mine: psycopg.AsyncConnection[Any]
) -> None:
    with pytest.raises(UsageError, match=r"conn= is synchronous \(psycopg.Connection\) and would block"):
        await double.options(conn=conn).asubmit(1)
    with pytest.raises(UsageError, match=r"conn= is synchronous \(sqlalchemy.Session\)"):
        await double.options(conn=Session(create_engine(url_of(dsn)))).asubmit(1)
    with pytest.raises(UsageError, match=r"conn= is asynchronous \(psycopg.AsyncConnection\): await"):
        await anyio.to_thread.run_sync(double.options(conn=mine).submit, 1)
    for stranger in ("postgresql://", object()):
        with pytest.raises(UsageError, match="a connection of psycopg, or a Session or Connection of SQLAlchemy"):
            await double.options(conn=stranger).asubmit(1)
    assert count(conn) == 0
