"""prune_runs.sql, count_prunable.sql and what walks through them: ended runs go in batches, nothing else goes, nobody waits."""

import math
import time
from collections.abc import Iterator
from datetime import datetime
from threading import Barrier, Event
from typing import Any

import anyio
import psycopg
import pytest
from support.blocking import rival
from support.crew import crew
from support.database import Conn
from support.hands import hire, submit
from support.tables import claim, finish, one, perform

from pgrun import PostgresDb, UsageError
from pgrun.db.pruning import Prunable, prune

DAY = 86_400.0


def end(conn: Conn, days: float, *, status: str = "completed", queue: str = "default", many: int = 1) -> list[str]:
    """Runs that ended so many days ago, each a second before the next; their ids."""
    with conn.transaction():
        rows = conn.execute(
            "insert into pgrun.jobs (kind, name, queue, status, finished_at) "
            "select 'task', 'noop', %s, %s, now() - make_interval(secs => %s * 86400 + n) "
            "from generate_series(%s, 1, -1) n returning run_id",
            [queue, status, days, many],
        ).fetchall()
    return [str(row["run_id"]) for row in rows]


def left(conn: Conn) -> set[str]:
    return {str(row["run_id"]) for row in conn.execute("select run_id from pgrun.jobs").fetchall()}


def prune_batch(
    conn: Conn, days: float, *, batch: int = 1000, after: str = "", status: str = "", queue: str = "", name: str = ""
) -> tuple[int, datetime | None]:
    which = {"status": status, "queue": queue, "name": name}
    (row,) = perform(conn, "prune_runs", older_than=days * DAY, **which, batch=batch, after=after)
    return row["deleted"], row["reached"]


def batches(conn: Conn, days: float, **choice: Any) -> Iterator[int]:
    """How many runs each call deletes, until one says that nothing is left."""
    after: datetime | None = None
    while True:
        deleted, after = prune_batch(conn, days, after=after.isoformat() if after else "", **choice)
        yield deleted
        if after is None:
            return


async def test_only_what_ended_long_enough_ago_is_deleted(db: PostgresDb, conn: Conn) -> None:
    old = [*end(conn, 8), *end(conn, 8, status="error"), *end(conn, 8, status="cancelled")]
    young = {*end(conn, 6), *end(conn, 6, status="error"), *end(conn, 0, status="cancelled")}
    assert await db.aprune(7 * DAY) == len(old)
    assert left(conn) == young


async def test_open_runs_stay_however_old_they_are(db: PostgresDb, conn: Conn) -> None:
    for columns in ("'pending', null", "'pending', 'session'", "'running', null", "'paused', null"):
        conn.execute(
            "insert into pgrun.jobs (name, status, held, created_at, due_at, started_at) select 'noop', "
            f"{columns}, at, at, at from (select now() - interval '1 year' as at) t".encode()
        )
    assert await db.aprune(0) == 0
    assert len(left(conn)) == 4


async def test_status_and_queue_narrow_it_down(db: PostgresDb, conn: Conn) -> None:
    runs = {(s, q): end(conn, 8, status=s, queue=q)[0] for s in ("completed", "error") for q in ("default", "mail")}
    assert await db.aprune(DAY, status="error", queue="mail") == 1
    assert left(conn) == {*runs.values()} - {runs["error", "mail"]}
    assert await db.aprune(DAY, status="error") == 1
    assert await db.aprune(DAY, queue="mail") == 1
    assert left(conn) == {runs["completed", "default"]}
    assert await db.aprune(DAY, queue="nobody's") == 0


async def test_a_name_narrows_it_down_too(db: PostgresDb, conn: Conn) -> None:
    end(conn, 8, many=3)
    conn.execute("update pgrun.jobs set name = 'other' where run_id = (select run_id from pgrun.jobs limit 1)")
    assert await (await db.connected()).verbs.count_prunable(DAY, status=None, queue=None, name="other") == 1
    assert await db.aprune(DAY, name="other") == 1
    assert one(conn, "select pgrun.prune(name => 'other')") == 0
    assert one(conn, "select pgrun.prune(name => 'noop')") == 2
    with pytest.raises(UsageError, match="name=''"):
        await db.aprune(DAY, name="")


async def test_a_count_says_what_pruning_would_delete(db: PostgresDb, conn: Conn) -> None:
    end(conn, 8, many=3)
    end(conn, 8, status="error", queue="mail", many=2)
    end(conn, 1, many=10)
    verbs = (await db.connected()).verbs
    for status, queue in [(None, None), ("error", None), (None, "default"), ("error", "default")]:
        counted = await verbs.count_prunable(2 * DAY, status=status, queue=queue)
        with conn.transaction(force_rollback=True):
            assert sum(batches(conn, 2, status=status or "", queue=queue or "")) == counted
    assert await db.aprune(2 * DAY) == 5


def test_a_batch_takes_the_oldest(conn: Conn) -> None:
    run_ids = end(conn, 8, many=5)
    deleted, reached = prune_batch(conn, 7, batch=2)
    assert deleted == 2
    assert left(conn) == {*run_ids[2:]}
    assert reached is not None
    assert reached < one(conn, "select min(finished_at) from pgrun.jobs")


def test_batches_go_on_until_nothing_is_left(conn: Conn) -> None:
    end(conn, 8, many=25)
    assert [*batches(conn, 7, batch=10)] == [10, 10, 5]
    assert [*batches(conn, 7, batch=10)] == [0]


def test_runs_that_ended_in_the_same_instant_go_batch_by_batch_too(conn: Conn) -> None:
    """As after ``update pgrun.jobs set status = 'cancelled'`` by a person."""
    with conn.transaction():
        end(conn, 9, many=3)
        end(conn, 7, many=3)
        conn.execute(
            "insert into pgrun.jobs (name, status, finished_at) "
            "select 'noop', 'cancelled', now() - interval '8 days' from generate_series(1, 250)"
        )
    found = [*batches(conn, 6, batch=10)]
    assert sum(found) == 256
    assert max(found) == 10


def test_few_that_match_among_many_that_do_not_are_all_found(conn: Conn) -> None:
    """Each call looks at a stretch of ten batches only."""
    for _ in range(5):
        end(conn, 8, many=1, status="error")
        end(conn, 9, many=150)
    conn.execute(
        "update pgrun.jobs set finished_at = now() - interval '9 days' where random() < 0.5 and status <> 'error'"
    )
    found = [*batches(conn, 7, batch=5, status="error")]
    assert sum(found) == 5
    assert len(found) > 3
    assert one(conn, "select array_agg(distinct status) from pgrun.jobs") == ["completed"]


async def test_a_session_goes_on_counting_where_it_was(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    for _ in range(2):
        await submit(db, session_id="s")
        await hand.complete(await hand.claim_one())
    open_one, next_one = await submit(db, session_id="s"), await submit(db, session_id="s")
    assert await db.aprune(0) == 2
    assert one(conn, "select last_seq from pgrun.sessions") == 4
    rows = conn.execute("select run_id, session_seq, held from pgrun.jobs order by session_seq").fetchall()
    assert [(str(row["run_id"]), row["session_seq"], row["held"]) for row in rows] == [
        (open_one, 3, None),
        (next_one, 4, "session"),
    ]
    await hand.complete(await hand.claim_one())
    assert (await hand.claim_one()).run_id == next_one


async def test_a_run_that_is_gone_is_not_there_and_its_id_can_be_used_again(db: PostgresDb, conn: Conn) -> None:
    (run_id,) = end(conn, 8)
    await db.aprune(DAY)
    assert await (await db.connected()).verbs.get(run_id) is None
    assert await submit(db, run_id=run_id) == run_id
    assert left(conn) == {run_id}


def test_locked_rows_are_skipped_and_nobody_waits(conn: Conn, dsn: str) -> None:
    run_ids = end(conn, 8, many=10)
    with rival(dsn) as other, conn.transaction():
        conn.execute("select from pgrun.jobs where run_id = any (%s::uuid[]) for update", [run_ids[:4]])
        (row,) = other.perform("prune_runs", older_than=DAY, status="", queue="", name="", batch=1000, after="").result(
            timeout=5
        )
        assert row["deleted"] == 6
    assert left(conn) == {*run_ids[:4]}
    assert sum(batches(conn, 7)) == 4


def test_a_run_that_somebody_makes_due_again_meanwhile_stays(conn: Conn, dsn: str) -> None:
    retried, other = end(conn, 8, status="error", many=2)
    with rival(dsn) as pruner:
        with conn.transaction():
            conn.execute("select pgrun.retry(%s)", [retried])
            done = pruner.perform("prune_runs", older_than=DAY, status="", queue="", name="", batch=1000, after="")
            assert done.result(timeout=5)[0]["deleted"] == 1
        assert left(conn) == {retried}
    assert other not in left(conn)
    assert [*batches(conn, 7)] == [0]


def test_many_who_prune_at_once_delete_each_run_once(conn: Conn, dsn: str) -> None:
    end(conn, 8, many=3000)
    young = {*end(conn, 6, many=100)}
    together = Barrier(6, timeout=10)

    def work(own: Conn) -> int:
        together.wait()
        return sum(batches(own, 7, batch=100))

    with crew(dsn) as threads:
        shares = [thread.result(timeout=15) for thread in [threads.start(work) for _ in range(6)]]
    shares.append(sum(batches(conn, 7)))  # what one had skipped because another held it, who deleted it
    assert sum(shares) == 3000
    assert left(conn) == young


async def test_the_walk_can_be_limited_and_goes_on_the_next_time(
    db: PostgresDb, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgrun.db.pruning._BATCH", 10)
    end(conn, 8, many=25)
    verbs = (await db.connected()).verbs
    which = Prunable(older_than=DAY)
    assert [await prune(verbs, which, max_batches=2) for _ in range(3)] == [20, 5, 0]


async def test_cancelled_it_stops_between_two_batches(
    db: PostgresDb, conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgrun.db.pruning._BATCH", 10)
    monkeypatch.setattr("pgrun.db.pruning._SHORTEST_PAUSE", 60)
    end(conn, 8, many=25)
    with anyio.move_on_after(0.5):
        await db.aprune(DAY)
    assert len(left(conn)) == 15


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_claims_go_on_while_a_hundred_thousand_runs_are_pruned(db: PostgresDb, conn: Conn, dsn: str) -> None:
    conn.execute("alter table pgrun.jobs disable trigger user")
    end(conn, 8, many=100_000)
    conn.execute("insert into pgrun.jobs (kind, name) select 'task', 'noop' from generate_series(1, 5000)")
    conn.execute("alter table pgrun.jobs enable trigger user")
    conn.execute("vacuum analyze pgrun.jobs")
    hand = await hire(db)
    pruned = Event()

    def work_on(own: Conn) -> list[float]:
        took = []
        while not pruned.is_set():
            started = time.monotonic()
            (row,) = claim(own, hand.worker_id)
            assert finish(own, row["run_id"], row["fence"])
            took.append(time.monotonic() - started)
        return took

    with crew(dsn) as threads:
        working = threads.start(work_on)
        began = time.monotonic()
        try:
            assert await db.aprune(7 * DAY) == 100_000
        finally:
            pruned.set()
        whole = time.monotonic() - began
        took = sorted(working.result(timeout=15))
    assert len(took) > 50
    assert took[-1] < whole / 2  # none waited for it to end
    assert took[len(took) // 2] < whole / 20  # and most noticed nothing


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"older_than": -1}, r"older_than=-1: seconds since a run ended"),
        ({"older_than": math.nan}, r"older_than=nan"),
        ({"older_than": math.inf}, r"older_than=inf"),
        ({"older_than": "7d"}, r"older_than='7d'"),
        ({"older_than": True}, r"older_than=True"),
        ({"older_than": 0, "status": "running"}, r"status='running': .*open runs are never pruned"),
        ({"older_than": 0, "status": ""}, r"status=''"),
        ({"older_than": 0, "queue": ""}, r"queue='': the name of a queue"),
        ({"older_than": 0, "queue": ["default"]}, r"queue=\['default'\]"),
    ],
)
async def test_what_cannot_be_is_refused_before_anything_is_deleted(
    db: PostgresDb, conn: Conn, arguments: dict[str, Any], says: str
) -> None:
    end(conn, 8)
    with pytest.raises(UsageError, match=says):
        await db.aprune(**arguments)
    assert len(left(conn)) == 1


def test_without_an_event_loop_it_is_the_same(conn: Conn, dsn: str) -> None:
    end(conn, 8, status="error")
    db = PostgresDb(dsn, worker="external")
    assert db.prune(7 * DAY, status="completed") == 0
    assert db.prune(7 * DAY, status="error", queue="default") == 1
    db.close()


class TestInPsql:
    """The function pgrun.prune."""

    def test_by_default_it_is_a_week(self, conn: Conn) -> None:
        end(conn, 8, many=3)
        young = {*end(conn, 6)}
        assert one(conn, "select pgrun.prune()") == 3
        assert left(conn) == young

    def test_every_parameter_can_be_given_by_name(self, conn: Conn) -> None:
        errors = end(conn, 3, status="error", queue="mail", many=5)
        others = {*end(conn, 3, queue="mail"), *end(conn, 3, status="error")}
        call = "select pgrun.prune(older_than => '2 days', status => 'error', queue => 'mail', max_rows => %s)"
        assert one(conn, call, 2) == 2
        assert left(conn) == others | {*errors[2:]}
        assert [one(conn, call, 2) for _ in range(3)] == [2, 1, 0]

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ("status => 'running'", 'status "running": only runs that are completed, error or cancelled can be pruned'),
            ("'-1 day'", "older_than -1 days: not negative"),
        ],
    )
    def test_what_cannot_be_says_so(self, conn: Conn, arguments: str, says: str) -> None:
        with pytest.raises(psycopg.Error, match=says) as refused:
            conn.execute(f"select pgrun.prune({arguments})".encode())
        assert refused.value.sqlstate == "PGR02"

    def test_it_skips_what_is_locked(self, conn: Conn, dsn: str) -> None:
        locked, _ = end(conn, 8, many=2)
        with rival(dsn) as other, conn.transaction():
            conn.execute("select from pgrun.jobs where run_id = %s for update", [locked])
            assert other.call(one, "select pgrun.prune()").result(timeout=5) == 1
        assert left(conn) == {locked}
