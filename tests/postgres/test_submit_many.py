"""Many calls in one statement: all of them or none, once, in their order."""

from typing import Any

import pytest
from support.database import Conn
from support.ear import Ear
from support.settings import FAST
from support.tables import one
from support.until import until

from pgrun import PostgresDb, Task, UsageError, Worker
from pgrun._ids import new_run_id
from pgrun.db import placing


def declare(db: PostgresDb) -> Task[[int], int]:
    @db.task
    async def double(number: int) -> int:
        return 2 * number

    return double


def count(conn: Conn) -> Any:
    return one(conn, "select count(*) from pgrun.jobs")


async def test_results_come_in_the_order_of_the_calls(db: PostgresDb) -> None:
    async with Worker(db):
        runs = await declare(db).asubmit_many({"number": number} for number in range(200))
        assert [await run.aresult(timeout=10) for run in runs] == [*range(0, 400, 2)]


async def test_one_call_that_does_not_fit_submits_nothing_and_is_named(db: PostgresDb, conn: Conn) -> None:
    with pytest.raises(UsageError, match=r"^number 2: double: number: Input should be a valid integer"):
        await declare(db).asubmit_many([{"number": 1}, {"number": 2}, {"number": "many"}])
    assert count(conn) == 0


async def test_more_than_jsonb_can_hold_is_refused_at_once_and_says_what_helps(
    db: PostgresDb, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "_JSONB", 1_999_999)

    @db.task
    async def keep(text: str) -> None: ...

    many = [{"text": "x" * 1000}] * 2000
    for submit in (keep.asubmit_many(many), keep.options(tags=["a"]).asubmit_many(many), keep.asubmit("x" * 2_000_000)):
        with pytest.raises(UsageError, match=r"^2 MB of input in one call.*conn=.*its place$"):
            await submit
    assert count(conn) == 0


async def test_ten_thousand_go_in_one_statement_and_wake_once(db: PostgresDb, conn: Conn, ear: Ear) -> None:
    runs = await declare(db).asubmit_many({"number": number} for number in range(10_000))
    assert ear.heard() == [("wake", "default")]
    assert len({run.run_id for run in runs}) == count(conn) == 10_000
    assert one(conn, "select count(distinct xmin::text) from pgrun.jobs") == 1
    row = conn.execute("select input from pgrun.jobs where run_id = %s", [runs[4321].run_id]).fetchone()
    assert row == {"input": {"number": 4321}}


@pytest.mark.soak
@pytest.mark.timeout(120)
@pytest.mark.parametrize("keyed", [False, True])
async def test_a_hundred_thousand_go_in_one_call_with_keys_and_without(db: PostgresDb, conn: Conn, keyed: bool) -> None:
    calls = [{"number": number} for number in range(100_000)]
    keys = [f"order-{number}" for number in range(100_000)]
    runs = await declare(db).asubmit_many(calls, keys=keys if keyed else None)
    again = await declare(db).asubmit_many(calls, keys=keys) if keyed else runs
    assert [run.run_id for run in again] == [run.run_id for run in runs]
    assert one(conn, "select count(distinct (input ->> 'number')::int) from pgrun.jobs") == count(conn) == 100_000


async def test_no_calls_are_no_runs(db: PostgresDb, conn: Conn) -> None:
    assert await declare(db).asubmit_many([]) == []
    assert count(conn) == 0


async def test_an_unknown_queue_is_refused(db: PostgresDb, conn: Conn) -> None:
    with pytest.raises(UsageError, match='unknown queue "nope"'):
        await declare(db).options(queue="nope").asubmit_many([{"number": 1}])
    assert count(conn) == 0


async def test_a_run_id_is_for_one_run(db: PostgresDb, conn: Conn) -> None:
    with pytest.raises(UsageError, match="run_id= is for one run"):
        await declare(db).options(run_id=new_run_id()).asubmit_many([{"number": 1}])
    assert count(conn) == 0


async def test_options_hold_for_all_of_them(db: PostgresDb, conn: Conn) -> None:
    some = declare(db).options(priority=3, delay=60, session_id="s", metadata={"a": 1})
    await some.asubmit_many({"number": number} for number in range(3))
    rows = conn.execute(
        "select session_seq, held, priority, metadata, input from pgrun.jobs order by session_seq"
    ).fetchall()
    assert [(row["session_seq"], row["held"], row["input"]["number"]) for row in rows] == [
        (1, None, 0),
        (2, "session", 1),
        (3, "session", 2),
    ]
    assert {(row["priority"], row["metadata"]["a"]) for row in rows} == {(3, 1)}


async def test_a_program_without_a_daemon_executes_them_itself(dsn: str, conn: Conn) -> None:
    async with PostgresDb(dsn, worker="embedded", settings=FAST) as db:
        await declare(db).asubmit_many({"number": number} for number in range(10))
        await until(lambda: one(conn, "select count(*) from pgrun.jobs where status = 'completed'") == 10)
