"""Automatic retention: what workers delete by themselves, and what a failure to do so must not disturb."""

import logging
from dataclasses import replace

import pytest
from support.database import Conn
from support.hands import hire, submit
from support.settings import FAST
from support.tables import one
from support.until import Heard, until, until_heard

from pgrun import PostgresDb, Settings, Worker
from pgrun.worker import retention
from pgrun.worker.retention import Retention

A_DAY = replace(FAST, retention=86_400.0)


@pytest.fixture
def ended(conn: Conn) -> None:
    """Runs that ended two hours, and two, four and eight days ago."""
    conn.execute(
        "insert into pgrun.jobs (name, status, finished_at) select 'noop', 'completed', now() - make_interval(hours => n) "
        "from unnest('{2,48,96,192}'::int[]) n"
    )


def kept(conn: Conn) -> int:
    return int(one(conn, "select count(*) from pgrun.jobs"))


async def retention_of(db: PostgresDb, settings: Settings) -> Retention:
    return Retention((await db.connected()).verbs, settings)


@pytest.mark.usefixtures("ended")
async def test_what_is_older_goes_and_what_is_younger_stays(db: PostgresDb, conn: Conn, heard: Heard) -> None:
    await (await retention_of(db, A_DAY)).look()
    assert kept(conn) == 1
    assert ("pruned", {"runs": 3}) in heard


@pytest.mark.usefixtures("ended")
async def test_each_status_has_its_own_time(db: PostgresDb, conn: Conn) -> None:
    conn.execute("insert into pgrun.jobs (name, status, finished_at) select name, 'error', finished_at from pgrun.jobs")
    settings = replace(FAST, retention={"completed": 86_400.0, "error": 5 * 86_400.0})
    await (await retention_of(db, settings)).look()
    left = conn.execute("select status, count(*) from pgrun.jobs group by status").fetchall()
    assert {row["status"]: row["count"] for row in left} == {"completed": 1, "error": 3}


@pytest.mark.usefixtures("ended")
async def test_by_default_runs_are_kept_for_ever_and_gone_workers_are_not(db: PostgresDb, conn: Conn) -> None:
    for days in (2, 0):
        hand = await hire(db)
        conn.execute(
            "update pgrun.workers set stopped_at = now() - make_interval(days => %s) where worker_id = %s",
            [days, hand.worker_id],
        )
    await (await retention_of(db, Settings())).look()
    assert kept(conn) == 4
    assert one(conn, "select count(*) from pgrun.workers") == 1


@pytest.mark.usefixtures("ended")
async def test_a_backlog_is_worked_off_over_several_looks(
    db: PostgresDb, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgrun.db.pruning._BATCH", 1)
    monkeypatch.setattr(retention, "_MAX_BATCHES", 2)
    looks = await retention_of(db, A_DAY)
    await looks.look()
    assert kept(conn) == 2
    await looks.look()
    assert kept(conn) == 1


async def test_events_may_go_earlier_than_their_runs(
    db: PostgresDb, conn: Conn, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_BATCH", 2)
    run_ids = [await submit(db, streams=True) for _ in range(6)]
    hand = await hire(db)
    await hand.complete(*await hand.claim())
    conn.execute(
        "update pgrun.jobs set finished_at = now() - interval '2 days' where run_id = any (%s::uuid[])", [run_ids[:5]]
    )
    await (await retention_of(db, Settings())).look()
    assert one(conn, "select count(distinct run_id) from pgrun.events") == 6
    await (await retention_of(db, replace(FAST, event_retention=86_400.0))).look()
    assert one(conn, "select run_id::text from pgrun.events limit 1") == run_ids[5]
    assert kept(conn) == 6
    assert ("pruned_events", {"runs": 5}) in heard


async def test_a_failure_is_said_and_forgiven(db: PostgresDb, conn: Conn, caplog: pytest.LogCaptureFixture) -> None:
    looks = await retention_of(db, A_DAY)
    conn.execute("alter table pgrun.workers rename to elsewhere")
    with caplog.at_level(logging.WARNING, "pgrun.worker"):
        await looks.look()
    assert "pruning is put off" in caplog.text


@pytest.mark.usefixtures("ended")
async def test_workers_look_while_they_work(
    dsn: str, conn: Conn, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_LOOK_EVERY", 0.05)
    async with PostgresDb(dsn, worker="external", settings=A_DAY) as db, Worker(db), Worker(db):
        await until_heard(heard, "pruned")
        assert kept(conn) == 1
        conn.execute("update pgrun.jobs set finished_at = now() - interval '2 days'")
        await until(lambda: kept(conn) == 0)


@pytest.mark.usefixtures("ended")
async def test_a_run_that_is_open_for_longer_than_the_retention_stays(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    conn.execute("update pgrun.jobs set created_at = now() - interval '1 year' where run_id = %s", [run_id])
    await (await retention_of(db, A_DAY)).look()
    assert kept(conn) == 2
