"""What users of other queues complain about; most of it has its test elsewhere, see docs/features.md."""

import time
from datetime import timedelta
from typing import Any

import anyio
import pytest
from support.database import Conn
from support.settings import FAST
from support.tables import one
from support.until import Heard, until, until_heard

from pgrun import PostgresDb, Worker
from pgrun.db.verbs import Verbs


async def test_two_hundred_runs_that_wait_hold_no_connection(db: PostgresDb, conn: Conn) -> None:
    enough = anyio.Event()

    @db.task
    async def wait() -> None:
        await enough.wait()

    async with Worker(db, concurrency=200):
        runs = await wait.asubmit_many([{}] * 200)
        await until(lambda: one(conn, "select count(*) from pgrun.jobs where status = 'running'") == 200)
        others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        assert one(conn, others) <= FAST.pool_size + 3  # a listener, a heartbeat, and one that may come and go
        enough.set()
        await db.await_runs([run.run_id for run in runs], timeout=10)


@pytest.mark.parametrize("days", [1, -1])
async def test_a_machine_whose_clock_is_wrong_by_a_day_does_everything_in_time(
    db: PostgresDb, conn: Conn, heard: Heard, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    right, right_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: right() + days * 86_400)
    monkeypatch.setattr(time, "time_ns", lambda: right_ns() + days * 86_400 * 10**9)

    @db.task
    async def note() -> None: ...

    async with Worker(db):
        await db.aschedule(note, every=0.2, missed="all")
        runs = [await note.asubmit(), await note.options(delay=0.3).asubmit()]
        await db.await_runs([run.run_id for run in runs], timeout=10)
        await until_heard(heard, "fired", schedule="note")
        # While it works: a worker that stops gives back what it has just claimed, and that is due anew.
        row = conn.execute(
            "select count(*) filter (where started_at < due_at) as early, max(started_at - due_at) as late from pgrun.jobs"
        ).fetchone()
    assert row
    assert row["early"] == 0
    assert row["late"] < timedelta(seconds=5)
    assert one(conn, "select count(*) from pgrun.worker_status where state = 'dead'") == 0


async def test_a_worker_whose_claims_are_broken_does_not_stay_as_if_nothing_were(
    db: PostgresDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault that nobody foresaw ends the worker; its supervisor, or whoever runs the program, starts another."""

    async def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(Verbs, "claim", broken)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with Worker(db):
            await anyio.sleep(10)
    assert caught.group_contains(ZeroDivisionError)
