"""Tasks and a failing network: everything is stored once, and no slot is free before its ending is written."""

from collections import Counter
from functools import partial
from typing import Any

import anyio
import pytest
from support.database import Conn
from support.hands import completed, hire, submit
from support.netfault import Proxy
from support.rows import row_of
from support.settings import FAST
from support.tables import one
from support.until import Heard, until

from pgrun import PostgresDb, Worker
from pgrun.db.records import Claimed
from pgrun.worker.recorder import Recorder

pytestmark = pytest.mark.slow

RECORD = """
create table public.ends (run_id uuid);
create function public.note() returns trigger language plpgsql as $$
begin
    insert into public.ends values (new.run_id);
    return null;
end $$;
create trigger note after update on pgrun.jobs
    for each row when (old.finished_at is null and new.finished_at is not null) execute function public.note();
"""


class Gauge:
    """How many are inside, and were at most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def __enter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        self.now -= 1


async def test_endings_are_written_once_whatever_the_network_does(proxy: Proxy, conn: Conn, heard: Heard) -> None:
    conn.execute(RECORD)
    at_once = Gauge()
    async with PostgresDb(proxy.conninfo, worker="external", settings=FAST) as db:

        @db.task
        async def work(number: int) -> int:
            with at_once:
                await anyio.sleep(0.001)
            return number

        async with Worker(db, concurrency=20):
            runs = await work.asubmit_many({"number": number} for number in range(400))
            for written in (50, 150, 250):
                await until(partial(more_than, conn, written))
                proxy.lose_answer("finish_runs")
                proxy.cut()
            assert [await run.aresult(timeout=15) for run in runs] == [*range(400)]
    assert "finish_runs" in proxy.lost
    assert one(conn, "select count(*) from public.ends") == 400
    assert one(conn, "select count(distinct run_id) from public.ends") == 400
    # Counted here and not in the table, where runs of a claim whose answer is lost stand as running until they are given back.
    assert at_once.most <= 20
    told = Counter(facts["run_id"] for name, facts in heard if name == "completed")
    assert told == Counter(run.run_id for run in runs)


def more_than(conn: Conn, written: int) -> bool:
    return bool(one(conn, "select count(*) from public.ends") > written)


async def test_one_output_that_cannot_be_stored_ends_that_run_only(db: PostgresDb, conn: Conn) -> None:
    run_ids = [await submit(db) for _ in range(20)]
    hand = await hire(db)
    claimed = await hand.claim()
    left: list[Claimed] = []
    recorder = Recorder(hand.verbs, left.extend)
    for run in claimed:
        recorder.finish(completed(run, b'"\\u0000"' if run.run_id == run_ids[7] else b'"fine"'))
    recorder.close()
    await recorder.write_endings()
    assert sorted(left) == sorted(claimed)
    assert one(conn, "select count(*) from pgrun.jobs where status = 'completed' and output = '\"fine\"'") == 19
    row = row_of(conn, run_ids[7])
    assert (row["status"], row["output"], row["error"]["type"]) == ("error", None, "OutputInvalid")
    assert "cannot be stored" in row["error"]["message"]


async def test_a_slot_is_taken_until_the_write_is_acknowledged(db: PostgresDb, conn: Conn) -> None:
    gate = anyio.Event()

    @db.task
    async def work() -> None:
        await gate.wait()

    await work.asubmit_many({} for _ in range(9))
    async with Worker(db, concurrency=3) as worker:
        await until(lambda: count(conn, "running") == 3)
        with conn.transaction():
            conn.execute("select from pgrun.jobs where status = 'running' for update")
            gate.set()
            await anyio.sleep(0.2)
            assert worker.running == count(conn, "running") == 3
        await until(lambda: count(conn, "completed") == 9)


def count(conn: Conn, status: str) -> Any:
    return one(conn, "select count(*) from pgrun.jobs where status = %s", status)


async def test_many_calls_whose_answer_is_lost_are_inserted_once(proxy: Proxy, conn: Conn) -> None:
    async with PostgresDb(proxy.conninfo, worker="external", settings=FAST) as db:

        @db.task
        async def double(number: int) -> int:
            return 2 * number

        proxy.lose_answer("submit_calls")
        runs = await double.asubmit_many({"number": number} for number in range(100))
        assert proxy.lost == ["submit_calls"]
        assert count(conn, "pending") == 100
        async with Worker(db):
            assert [await run.aresult(timeout=10) for run in runs] == [*range(0, 200, 2)]
