"""Calls of a task that are submitted at the same time: together, each once, and none at the cost of another."""

from collections import Counter

import anyio
from support.database import Conn
from support.netfault import Proxy
from support.settings import FAST
from support.tables import one
from support.until import until

from pgrun import DatabaseUnavailable, PgrunError, PostgresDb, Settings, Task, UsageError, Worker


def declare(db: PostgresDb) -> Task[[int], int]:
    @db.task
    async def double(number: int) -> int:
        return 2 * number

    return double


def transactions(conn: Conn) -> int:
    return int(one(conn, "select count(distinct xmin::text) from pgrun.jobs"))


async def test_calls_that_come_together_share_a_commit_and_keep_their_results(db: PostgresDb, conn: Conn) -> None:
    double, results = declare(db), dict[int, int]()

    async def call(number: int) -> None:
        results[number] = await (await double.asubmit(number)).aresult(timeout=10)

    async with anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(call, number)
        await until(lambda: one(conn, "select count(*) from pgrun.jobs") == 200)
        assert transactions(conn) <= 3
        async with Worker(db):
            await until(lambda: len(results) == 200)
    assert results == {number: 2 * number for number in range(200)}


async def test_one_after_the_other_each_is_committed_when_its_call_returns(db: PostgresDb, conn: Conn) -> None:
    double = declare(db)
    for number in range(1, 6):
        await double.asubmit(number)
        assert transactions(conn) == number


async def test_options_are_those_of_each_call(db: PostgresDb, conn: Conn) -> None:
    double = declare(db)
    async with anyio.create_task_group() as tasks:
        for number in range(30):
            tasks.start_soon(double.options(priority=number % 3, metadata={"n": number}).asubmit, number)
            tasks.start_soon(double.asubmit, 100)
    rows = conn.execute("select priority, metadata, input from pgrun.jobs").fetchall()
    found = Counter((row["priority"], row["metadata"].get("n"), row["input"]["number"]) for row in rows)
    assert found.pop((0, None, 100)) == 30
    assert found == {(number % 3, number, number): 1 for number in range(30)}


async def test_runs_of_a_session_go_alone_and_a_locked_session_holds_nobody_else_up(db: PostgresDb, conn: Conn) -> None:
    double = declare(db)
    async with anyio.create_task_group() as tasks:
        with conn.transaction():
            conn.execute("insert into pgrun.sessions (session_id) values ('s')")
            tasks.start_soon(double.options(session_id="s").asubmit, 0)
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(5):
                for number in range(1, 4):
                    await double.asubmit(number)
    assert one(conn, "select count(*) from pgrun.jobs") == 4


async def test_one_that_the_database_refuses_does_not_take_the_others_with_it(db: PostgresDb, conn: Conn) -> None:
    double, refused = declare(db), list[int]()
    conn.execute("alter table pgrun.jobs add constraint odd check ((input ->> 'number')::int <> 13)")

    async def submit(number: int) -> None:
        try:
            await double.asubmit(number)
        except PgrunError:
            refused.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(submit, number)
    assert refused == [13]
    assert one(conn, "select count(*) from pgrun.jobs") == 39


async def test_a_caller_that_is_cancelled_before_its_turn_has_submitted_nothing(db: PostgresDb, conn: Conn) -> None:
    double, scopes = declare(db), [anyio.CancelScope() for _ in range(10)]

    async def submit(number: int) -> None:
        with scopes[number]:
            await double.asubmit(number)

    await double.asubmit(-1)
    async with anyio.create_task_group() as tasks:
        with conn.transaction():
            conn.execute("lock table pgrun.jobs in exclusive mode")
            tasks.start_soon(submit, 0)
            await until(lambda: waiting(conn) == 1)
            for number in range(1, 10):
                tasks.start_soon(submit, number)
            await anyio.wait_all_tasks_blocked()
            for scope in scopes[1::2]:
                scope.cancel()
            await until(lambda: all(scope.cancelled_caught for scope in scopes[1::2]))
    numbers = conn.execute("select (input ->> 'number')::int as number from pgrun.jobs order by 1").fetchall()
    assert [row["number"] for row in numbers] == [-1, 0, 2, 4, 6, 8]


async def test_callers_that_are_cancelled_while_they_are_written_leave_when_all_is_written(
    db: PostgresDb, conn: Conn
) -> None:
    double, done = declare(db), list[int]()
    scope = anyio.CancelScope()

    async def submit(number: int) -> None:
        await double.asubmit(number)
        done.append(number)

    async def some() -> None:
        with scope:
            async with anyio.create_task_group() as inner:
                for number in (1, 2):
                    inner.start_soon(submit, number)

    conn.execute(
        "create function public.gate() returns trigger language plpgsql as "
        "$$ begin perform pg_advisory_xact_lock_shared(least((new.input ->> 'number')::int, 1)); return new; end $$"
    )
    conn.execute("create trigger gate before insert on pgrun.jobs for each row execute function public.gate()")
    conn.execute("select pg_advisory_lock(0), pg_advisory_lock(1)")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(submit, 0)
        await until(lambda: waiting(conn) == 1)
        tasks.start_soon(some)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(submit, 3)
        await anyio.wait_all_tasks_blocked()
        conn.execute("select pg_advisory_unlock(0)")
        await until(lambda: done == [0] and waiting(conn) == 1)
        scope.cancel()
        await anyio.sleep(0.05)
        assert not scope.cancelled_caught
        conn.execute("select pg_advisory_unlock(1)")
    assert scope.cancelled_caught
    assert sorted(done) == [0, 3]
    assert one(conn, "select count(*) from pgrun.jobs") == 4


def waiting(conn: Conn) -> int:
    conn.execute("select pg_stat_clear_snapshot()")
    return int(
        one(
            conn,
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
        )
    )


async def test_those_whose_answer_is_lost_are_inserted_once(proxy: Proxy, conn: Conn) -> None:
    async with PostgresDb(proxy.conninfo, worker="external", settings=FAST) as db:
        double = declare(db)
        await double.asubmit(0)
        proxy.lose_answer("submit_call", "submit_calls")
        async with anyio.create_task_group() as tasks:
            for number in range(1, 50):
                tasks.start_soon(double.asubmit, number)
        assert proxy.lost == ["submit_call", "submit_calls"]
    assert one(conn, "select count(*) from pgrun.jobs") == 50


async def test_a_database_that_stays_away_is_reported_to_each(proxy: Proxy, conn: Conn) -> None:
    settings = Settings(statement_timeout=0.5, reconnect_timeout=0.5)
    async with PostgresDb(proxy.conninfo, worker="external", settings=settings) as db:
        double, told = declare(db), list[str]()
        await double.asubmit(0)
        proxy.refuse()

        async def submit(number: int) -> None:
            try:
                await double.asubmit(number)
            except DatabaseUnavailable as error:
                told.append(str(error))

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(submit, number)
    assert len(told) == 20
    assert one(conn, "select count(*) from pgrun.jobs") == 1


async def test_an_unknown_queue_is_told_to_each(db: PostgresDb, conn: Conn) -> None:
    double, told = declare(db).options(queue="nope"), list[str]()

    async def submit() -> None:
        try:
            await double.asubmit(1)
        except UsageError as error:
            told.append(str(error))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(submit)
    assert len(told) == 5
    conn.execute("insert into pgrun.queues (queue) values ('nope')")
    await double.asubmit(1)
    assert one(conn, "select count(*) from pgrun.jobs") == 1
