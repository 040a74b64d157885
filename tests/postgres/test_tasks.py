"""Functions whose calls are runs: from the call to its typed result, and every way in which it can end."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from pydantic import BaseModel
from support.database import Conn
from support.rows import row_of
from support.settings import FAST, SOON
from support.tables import one
from support.until import Heard, until_heard

from pgrun import OutputInvalid, PostgresDb, RetryPolicy, RunFailed, Task, UsageError, Worker
from pgrun._ids import new_run_id
from pgrun.errors import QuotaExceeded, ToolFailed
from pgrun.run.options import RunOptions
from pgrun.task import registered_tasks


class City(BaseModel):
    name: str
    seen: set[int] = set()


@dataclass
class Visit:
    city: City
    when: datetime


async def test_an_async_function_gives_its_typed_result(db: PostgresDb) -> None:
    @db.task
    async def visit(city: City, when: datetime, *, days: int = 1) -> Visit:
        return Visit(city, when + timedelta(days=days))

    when = datetime(2026, 1, 1, tzinfo=UTC)
    async with Worker(db):
        run = await visit.asubmit(City(name="Oslo", seen={1}), when, days=2)
        assert await run.aresult(timeout=10) == Visit(City(name="Oslo", seen={1}), when + timedelta(days=2))
        assert await run.aresult(timeout=0) == await run.aresult()


async def test_a_plain_function_gives_its_typed_result(db: PostgresDb) -> None:
    @db.task
    def found(names: list[str]) -> list[City]:
        return [City(name=name) for name in names]

    async with Worker(db):
        run = await found.asubmit(["Rome", "Oslo"])
        assert await run.aresult(timeout=10) == [City(name="Rome"), City(name="Oslo")]


async def test_the_row_tells_what_was_called_and_what_came_of_it(
    db: PostgresDb, conn: Conn, double: Task[[int], int]
) -> None:
    async with Worker(db) as worker:
        run = await double.asubmit(21)
        await run.aresult(timeout=10)
    row = row_of(conn, run.run_id)
    assert (row["kind"], row["name"], row["queue"]) == ("task", "double", "default")
    assert (row["input"], row["output"], row["error"]) == ({"number": 21}, 42, None)
    assert (row["status"], row["attempt"], row["fence"], row["session_id"]) == ("completed", 1, 1, None)
    assert str(row["worker_id"]) == worker.worker_id


async def test_a_function_without_a_result_completes_with_json_null(db: PostgresDb, conn: Conn) -> None:
    @db.task
    async def nothing() -> None: ...

    async with Worker(db):
        run = await nothing.asubmit()
        await run.aresult(timeout=10)
    assert one(conn, "select output::text from pgrun.jobs") == "null"


async def test_a_result_of_a_million_characters_arrives_whole(db: PostgresDb) -> None:
    @db.task
    async def much(character: str) -> str:
        return character * 1_000_000

    async with Worker(db):
        runs = await much.asubmit_many({"character": character} for character in "aü😀" * 10)
        for run, character in zip(runs, "aü😀" * 10, strict=True):
            assert await run.aresult(timeout=10) == character * 1_000_000


def test_without_an_event_loop_there_are_sync_twins(dsn: str) -> None:
    db = PostgresDb(dsn, worker="embedded", settings=FAST)

    @db.task
    async def double(number: int) -> int:
        return 2 * number

    try:
        assert double.submit(1).result(timeout=10) == 2
        assert [run.result(timeout=10) for run in double.submit_many([{"number": 2}, {"number": 3}])] == [4, 6]
    finally:
        db.close()


async def test_calling_a_task_stores_nothing(conn: Conn, double: Task[[int], int]) -> None:
    assert await double(2) == 4
    assert one(conn, "select count(*) from pgrun.jobs") == 0


async def test_options_are_in_the_row(db: PostgresDb, conn: Conn, double: Task[[int], int]) -> None:
    async with Worker(db, queues=["mail"]):
        pass  # now the queue is known
    options: RunOptions = {"queue": "mail", "priority": -3, "session_id": "s", "max_attempts": 7, "metadata": {"a": 1}}
    run = await double.options(**options).options(delay=60, run_id=new_run_id()).asubmit(1)
    row = row_of(conn, run.run_id)
    assert {name: row[name] for name in options} == options
    assert row["due_at"] - row["created_at"] == timedelta(seconds=60)


async def test_the_declaration_gives_the_queue_and_the_attempts(db: PostgresDb, conn: Conn) -> None:
    @db.task(name="sums.double", queue="sums", retry=RetryPolicy(max_attempts=9))
    async def double(number: int) -> int:
        return 2 * number

    with pytest.raises(UsageError, match='unknown queue "sums"'):
        await double.asubmit(1)
    async with Worker(db, queues=["sums"]):
        run = await double.asubmit(1)
        assert await run.aresult(timeout=10) == 2
    row = row_of(conn, run.run_id)
    assert (row["name"], row["queue"], row["max_attempts"]) == ("sums.double", "sums", 9)


async def test_a_run_id_makes_a_repeated_submit_harmless(db: PostgresDb, conn: Conn, double: Task[[int], int]) -> None:
    mine = double.options(run_id=new_run_id())
    first, again = await mine.asubmit(1), await mine.asubmit(2)
    async with Worker(db):
        assert await again.aresult(timeout=10) == await first.aresult(timeout=10) == 2
    assert one(conn, "select count(*) from pgrun.jobs") == 1


async def test_arguments_that_do_not_fit_submit_nothing(conn: Conn, double: Task[[int], int]) -> None:
    for given in (("many",), (1, 2), ()):
        with pytest.raises(UsageError, match=r"^double: "):
            await double.asubmit(*given)
    assert one(conn, "select count(*) from pgrun.jobs") == 0


async def test_runs_of_a_session_execute_one_at_a_time_in_order(db: PostgresDb) -> None:
    said: list[tuple[str, int]] = []

    @db.task
    async def say(number: int) -> None:
        said.append(("begin", number))
        await anyio.sleep(0.002)
        said.append(("end", number))

    in_session = say.options(session_id="s")
    runs = [await in_session.asubmit(number) for number in range(5)]
    runs += await in_session.asubmit_many({"number": number} for number in range(5, 10))
    async with Worker(db):
        await db.await_runs([run.run_id for run in runs], timeout=10)
    assert said == [(what, number) for number in range(10) for what in ("begin", "end")]


async def test_smaller_priorities_go_first_and_delayed_ones_later(db: PostgresDb, double: Task[[int], int]) -> None:
    said: list[str] = []

    @db.task
    async def say(word: str) -> None:
        said.append(word)

    runs = [
        await say.options(delay=0.3).asubmit("later"),
        await say.asubmit("second"),
        await say.options(priority=-1).asubmit("first"),
    ]
    async with Worker(db, concurrency=1):
        await db.await_runs([run.run_id for run in runs], timeout=10)
    assert said == ["first", "second", "later"]


@pytest.fixture
def errors() -> list[Exception]:
    """What the next calls of `fail` raise."""
    return []


@pytest.fixture(params=["async", "plain"])
def fail(request: pytest.FixtureRequest, db: PostgresDb, errors: list[Exception]) -> Task[[], int]:
    def fail() -> int:
        if errors:
            raise errors.pop(0)
        return 7

    async def fail_async() -> int:
        return fail()

    return db.task(retry=SOON)(fail_async) if request.param == "async" else db.task(retry=SOON)(fail)


async def test_an_exception_is_followed_by_another_attempt(
    db: PostgresDb, conn: Conn, fail: Task[[], int], errors: list[Exception]
) -> None:
    errors += [ValueError("once"), KeyError("twice")]
    async with Worker(db):
        run = await fail.asubmit()
        assert await run.aresult(timeout=10) == 7
    assert (row_of(conn, run.run_id)["attempt"], row_of(conn, run.run_id)["error"]) == (3, None)


async def test_after_the_last_attempt_the_exception_is_the_end(
    db: PostgresDb, conn: Conn, fail: Task[[], int], errors: list[Exception]
) -> None:
    errors += [ValueError(f"no {number}\x00") for number in range(9)]
    async with Worker(db):
        run = await fail.asubmit()
        with pytest.raises(RunFailed, match="no 2") as caught:
            await run.aresult(timeout=10)
    assert (caught.value.error_type, caught.value.run_id) == ("ValueError", run.run_id)
    row = row_of(conn, run.run_id)
    assert (row["status"], row["attempt"], row["output"]) == ("error", 3, None)
    assert row["error"].pop("traceback").endswith("ValueError: no 2\ufffd\n")
    assert row["error"] == {"type": "ValueError", "message": "no 2\ufffd", "attempt": 3}


@pytest.mark.parametrize("error", [ToolFailed("broken for good"), UsageError("called wrongly")])
async def test_what_is_wrong_for_good_is_not_tried_again(
    db: PostgresDb, conn: Conn, fail: Task[[], int], errors: list[Exception], error: Exception
) -> None:
    errors += [error]
    async with Worker(db):
        with pytest.raises(RunFailed) as caught:
            await (await fail.asubmit()).aresult(timeout=10)
    assert caught.value.error_type == type(error).__name__
    assert one(conn, "select attempt from pgrun.jobs") == 1


async def test_a_task_may_put_itself_off(
    db: PostgresDb, conn: Conn, fail: Task[[], int], errors: list[Exception]
) -> None:
    errors += [QuotaExceeded("no credit")]
    async with Worker(db):
        assert await (await fail.asubmit()).aresult(timeout=10) == 7
    assert one(conn, "select attempt from pgrun.jobs") == 1


@pytest.mark.parametrize("wrong", ["many", "a\x00", object(), None])
async def test_a_wrong_result_is_the_end(db: PostgresDb, conn: Conn, wrong: object) -> None:
    calls: list[int] = []

    @db.task(retry=SOON)
    async def count() -> int:
        calls.append(1)
        return wrong  # type: ignore[return-value]

    async with Worker(db):
        with pytest.raises(RunFailed) as caught:
            await (await count.asubmit()).aresult(timeout=10)
    assert caught.value.error_type == "OutputInvalid"
    assert isinstance(caught.value.__cause__, OutputInvalid)
    assert "count returned what its annotation does not allow" in str(caught.value)
    assert len(calls) == 1


async def test_stored_arguments_that_do_not_fit_any_more_are_the_end(
    db: PostgresDb, conn: Conn, double: Task[[int], int]
) -> None:
    run = await double.asubmit(1)
    conn.execute("""update pgrun.jobs set input = '{"nombre": 1}'""")
    async with Worker(db):
        with pytest.raises(RunFailed, match="double: number: Field required; nombre: "):
            await run.aresult(timeout=10)
    assert row_of(conn, run.run_id)["attempt"] == 1


async def test_a_stored_result_that_does_not_fit_any_more_is_reported(
    db: PostgresDb, conn: Conn, double: Task[[int], int]
) -> None:
    async with Worker(db):
        run = await double.asubmit(1)
        await run.aresult(timeout=10)
    conn.execute("""update pgrun.jobs set output = '"two"'""")
    with pytest.raises(OutputInvalid, match="stored result of double"):
        await run.aresult(timeout=10)


async def test_what_nobody_here_knows_is_put_off_until_somebody_does(
    db: PostgresDb, conn: Conn, heard: Heard, double: Task[[int], int]
) -> None:
    registered_tasks().clear()
    async with Worker(db):
        run = await double.asubmit(21)
        await until_heard(heard, "released", run_id=run.run_id)
        row = row_of(conn, run.run_id)
        assert (row["status"], row["attempt"], row["error"]["type"]) == ("pending", 0, "UnknownName")
        assert "pgrun worker --import" in row["error"]["message"]
        registered_tasks()["double"] = double
        assert await run.aresult(timeout=10) == 42
    assert row_of(conn, run.run_id)["error"] is None


async def test_plain_sql_submits_a_call(db: PostgresDb, conn: Conn, double: Task[[int], int]) -> None:
    async with Worker(db):
        run_id = one(conn, """select pgrun.submit('double', '{"number": 4}')::text""")
        (ended,) = await db.await_runs([run_id], timeout=10)
    assert ended.content == 8
