"""retry_failed.sql and pgrun.retry_many: what failed of one cause is made due again, in batches, and each run once."""

from threading import Barrier
from typing import Any

import pytest
from support.crew import crew
from support.database import Conn
from support.hands import failed, hire, submit
from support.tables import one, perform

from pgrun import PostgresDb, UsageError, Worker
from pgrun.db import redriving


@pytest.fixture
def fail(conn: Conn) -> Any:
    """Inserts runs that have failed."""

    def insert(hours: float = 0, *, many: int = 1, **columns: Any) -> list[str]:
        given = {"name": "noop", "queue": "default", "session_id": None, "error": '{"type": "KeyError"}', **columns}
        rows = conn.execute(
            "insert into pgrun.jobs (kind, name, queue, session_id, status, attempt, fence, error, finished_at) "
            "select 'task', %(name)s, %(queue)s, %(session_id)s, 'error', 5, 5, %(error)s, "
            "now() - make_interval(secs => %(hours)s * 3600 + n) from generate_series(%(many)s, 1, -1) n returning run_id",
            {**given, "hours": hours, "many": many},
        ).fetchall()
        return [str(row["run_id"]) for row in rows]

    return insert


def due(conn: Conn) -> list[str]:
    rows = conn.execute("select run_id from pgrun.jobs where status = 'pending' and attempt = 0").fetchall()
    return [str(row["run_id"]) for row in rows]


async def test_filters_say_which(db: PostgresDb, conn: Conn, fail: Any) -> None:
    chosen = fail(many=2, name="mail", queue="slow")
    fail(name="mail")
    fail(name="other", queue="slow")
    fail(name="mail", queue="slow", error='{"type": "ValueError"}')
    fail(5, name="mail", queue="slow")
    which: dict[str, Any] = {"queue": "slow", "name": "mail", "error_type": "KeyError", "since": 3600.0}
    verbs = (await db.connected()).verbs
    assert await verbs.count_failed(**which) == 2
    assert await db.aretry_runs(**which) == 2
    assert {*due(conn)} == {*chosen}
    assert await db.aretry_runs(**which) == 0
    assert await db.aretry_runs() == 4


async def test_it_takes_the_oldest_first_and_no_more_than_it_may(db: PostgresDb, conn: Conn, fail: Any) -> None:
    runs = fail(many=7)
    assert await db.aretry_runs(limit=3) == 3
    assert {*due(conn)} == {*runs[:3]}
    assert await db.aretry_runs(limit=0) == 0


async def test_what_fails_again_meanwhile_is_left_alone(
    db: PostgresDb, conn: Conn, fail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever retries what cannot succeed would never come to an end."""
    monkeypatch.setattr(redriving, "_BATCH", 2)
    fail(many=7)
    hand = await hire(db)
    retry = hand.verbs.retry_failed

    async def fail_again(**which: Any) -> Any:
        outcome = await retry(**which)
        await hand.verbs.finish([failed(run) for run in await hand.claim()])
        return outcome

    monkeypatch.setattr(hand.verbs, "retry_failed", fail_again)
    assert await redriving.retry_failed(hand.verbs, redriving.Failed()) == 7
    assert one(conn, "select count(*) from pgrun.jobs where status = 'error'") == 7


async def test_completed_cancelled_and_open_runs_are_not_touched(db: PostgresDb, conn: Conn) -> None:
    for state in ("completed", "cancelled"):
        conn.execute("insert into pgrun.jobs (name, status, finished_at) values ('noop', %s, now())", [state])
    await submit(db, delay=3600)
    before = conn.execute("select run_id, status, due_at from pgrun.jobs order by run_id").fetchall()
    assert await db.aretry_runs() == 0
    assert conn.execute("select run_id, status, due_at from pgrun.jobs order by run_id").fetchall() == before


async def test_a_session_takes_its_runs_in_order(db: PostgresDb, conn: Conn, fail: Any) -> None:
    runs = fail(many=3, session_id="s")
    assert await db.aretry_runs() == 3
    hand = await hire(db)
    for run_id in runs:
        (claimed,) = await hand.claim()
        assert claimed.run_id == run_id
        await hand.complete(claimed)


async def test_workers_are_woken_and_execute_them(db: PostgresDb, conn: Conn) -> None:
    broken = [True]

    @db.task(max_attempts=1)
    async def work(number: int) -> int:
        if broken:
            raise ConnectionError("the service is away")
        return number

    async with Worker(db):
        runs = await work.asubmit_many({"number": number} for number in range(5))
        assert {run.status for run in await db.await_runs(runs, timeout=10)} == {"error"}
        broken.clear()
        assert await db.aretry_runs(error_type="ConnectionError") == 5
        assert [run.content for run in await db.await_runs(runs, timeout=10)] == [*range(5)]


async def test_many_who_do_it_at_once_share_the_runs(conn: Conn, dsn: str, fail: Any) -> None:
    for session in ("a", "b", None):
        fail(many=40, session_id=session)
    together = Barrier(4, timeout=10)

    def redrive(own: Conn) -> int:
        together.wait()
        retried = 0
        while found := one(own, "select pgrun.retry_many(max_rows => 7)"):
            retried += found
        return retried

    with crew(dsn) as threads:
        retried = [thread.result() for thread in [threads.start(redrive) for _ in range(4)]]
    assert sum(retried) >= 120  # a run that two have chosen is due all the same
    assert one(conn, "select count(*) from pgrun.jobs where status = 'pending'") == 120
    assert one(conn, "select count(*) from pgrun.jobs where held is null and session_id = 'a'") == 1


def test_a_filter_that_cannot_be_is_refused() -> None:
    wrong: list[dict[str, Any]] = [{"queue": ""}, {"name": 7}, {"error_type": ""}, {"since": -1}]
    for each in wrong:
        with pytest.raises(UsageError):
            redriving.Failed(**each)


async def test_a_limit_that_cannot_be_is_refused(db: PostgresDb, conn: Conn) -> None:
    with pytest.raises(UsageError, match="limit=-1"):
        await db.aretry_runs(limit=-1)
    assert perform(conn, "count_failed", queue="", name="", error_type="", since="0")[0]["failed"] == 0
