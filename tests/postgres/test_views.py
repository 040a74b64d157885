"""The views for psql: their columns, which are kept, their numbers, and that everything in the schema is explained."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from support.database import Conn
from support.hands import completed, failed, hire, lose, submit
from support.rows import Row
from support.tables import one

from pgrun import PostgresDb

COLUMNS = {
    "runs": "run_id kind name queue status session_id priority attempt max_attempts worker_id created_at due_at started_at "
    "finished_at waited duration error held waits_for key tags metadata progress",
    "queue_stats": "queue depth held scheduled oldest_due_age running finished_last_minute finished_last_hour error_rate paused "
    "waiting_for_people concurrency key_concurrency rate per burst tokens waits_for",
    "worker_status": "worker_id mode host pid version queues concurrency running state started_at heartbeat_at lease_until "
    "blocked_for",
    "usage_by_day": "day model name runs input_tokens cached_tokens output_tokens reasoning_tokens total_tokens cost_usd",
    "usage_by_tree": "root_run_id session_id name runs input_tokens cached_tokens output_tokens reasoning_tokens total_tokens "
    "cost_usd",
    "usage_by_session": "session_id runs input_tokens cached_tokens output_tokens reasoning_tokens total_tokens cost_usd",
    "failures": "run_id kind name queue session_id attempt finished_at error_type message details",
}
NO_LIMITS = dict.fromkeys(("concurrency", "key_concurrency", "rate", "per", "burst", "tokens", "waits_for"))


@pytest.mark.parametrize("view", COLUMNS)
def test_the_columns_of_a_view_are_kept(conn: Conn, view: str) -> None:
    names = one(
        conn,
        "select array_agg(attname::text order by attnum) from pg_attribute where attrelid = ('pgrun.' || %s)::regclass",
        view,
    )
    assert names == COLUMNS[view].split()


def test_everything_in_the_schema_is_explained(conn: Conn) -> None:
    unexplained = conn.execute(
        """
        select c.oid::regclass::text as name from pg_class c
         where c.relnamespace = 'pgrun'::regnamespace and c.relkind in ('r', 'v', 'm', 'p')
           and obj_description(c.oid, 'pg_class') is null
         union all
        select c.oid::regclass::text || '.' || a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid
         where c.relnamespace = 'pgrun'::regnamespace and c.relkind in ('r', 'v', 'm', 'p') and a.attnum > 0
           and not a.attisdropped and col_description(c.oid, a.attnum) is null
         union all
        select p.oid::regprocedure::text from pg_proc p
         where p.pronamespace = 'pgrun'::regnamespace and obj_description(p.oid, 'pg_proc') is null
        """
    ).fetchall()
    assert unexplained == []


def runs(conn: Conn) -> list[Row]:
    return conn.execute("select * from pgrun.runs order by priority").fetchall()


async def test_a_run_shows_how_long_it_waited_and_took(db: PostgresDb, conn: Conn) -> None:
    for priority in range(4):
        await submit(db, priority=priority, session_id="s" if priority > 1 else None)
    hand = await hire(db)
    ended, running, _ = await hand.claim()
    await hand.complete(ended)
    conn.execute(
        "update pgrun.jobs set due_at = now() - interval '10 min', "
        "started_at = case when started_at is not null then now() - interval '7 min' end, "
        "finished_at = case when finished_at is not null then now() - interval '2 min' end"
    )

    first, second, third, fourth = runs(conn)
    assert (first["waited"], first["duration"]) == (timedelta(minutes=3), timedelta(minutes=5))
    assert (second["waited"], str(second["run_id"])) == (timedelta(minutes=3), running.run_id)
    assert timedelta(minutes=7) <= second["duration"] < timedelta(minutes=8)
    assert third["status"] == "running"
    assert timedelta(minutes=10) <= fourth["waited"] < timedelta(minutes=11)
    assert (fourth["duration"], fourth["held"], fourth["session_id"]) == (None, "session", "s")


async def test_a_run_that_waits_for_its_next_attempt_takes_no_time(db: PostgresDb, conn: Conn) -> None:
    await submit(db)
    hand = await hire(db)
    await hand.verbs.retry(await hand.claim_one(), delay=60, error={"message": "broke"}, metrics={})
    (run,) = runs(conn)
    assert (run["duration"], run["waited"], run["error"]) == (None, timedelta(0), "broke")


def stats(conn: Conn) -> dict[str, dict[str, Any]]:
    return {row.pop("queue"): row for row in conn.execute("select * from pgrun.queue_stats").fetchall()}


def test_a_queue_without_runs_counts_nothing(conn: Conn) -> None:
    zero = dict.fromkeys(COLUMNS["queue_stats"].split()[1:], 0)
    assert stats(conn) == {"default": zero | {"oldest_due_age": None, "error_rate": None, "paused": False} | NO_LIMITS}


async def test_a_queue_counts_what_waits_runs_and_has_ended(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db)
    for _ in range(5):
        await submit(db)
    ended = await hand.claim(4)
    await hand.verbs.finish([failed(ended[0]), *map(completed, ended[1:])])
    conn.execute("update pgrun.jobs set finished_at = now() - interval '30 min' where run_id = %s", [ended[3].run_id])
    await hand.claim_one()
    old = await submit(db)
    conn.execute("update pgrun.jobs set due_at = now() - interval '5 min' where run_id = %s", [old])
    await submit(db, session_id="s")
    await submit(db, session_id="s")
    await submit(db, delay=600)
    conn.execute(
        "insert into pgrun.jobs (name, status, finished_at) values ('noop', 'error', now() - interval '2 h')"
    )  # too long ago for any number
    conn.execute("insert into pgrun.jobs (name, queue) values ('noop', 'nobody_declared')")

    counted = stats(conn)
    mine = counted["default"]
    age = mine.pop("oldest_due_age")
    assert timedelta(minutes=5) <= age < timedelta(minutes=6)
    assert mine == {
        **{"depth": 2, "held": 1, "scheduled": 1, "running": 1, "finished_last_minute": 3, "finished_last_hour": 4},
        **{"error_rate": pytest.approx(0.25), "paused": False, "waiting_for_people": 0},
        **NO_LIMITS,
    }
    assert counted["nobody_declared"]["depth"] == 1


def test_a_queue_shows_whether_it_is_paused_at_present(conn: Conn) -> None:
    for resume_at, paused in [("null", True), ("now() + interval '1 h'", True), ("now() - interval '1 s'", False)]:
        conn.execute(f"select pgrun.pause_queue('default', {resume_at})".encode())
        assert stats(conn)["default"]["paused"] is paused


async def test_a_worker_shows_what_it_is_and_holds(db: PostgresDb, conn: Conn) -> None:
    hand = await hire(db, queues=["default", "mail"])
    await hire(db, mode="embedded")
    await submit(db)
    await hand.claim_one()
    shown = conn.execute("select mode, queues, running, state, pid from pgrun.worker_status order by mode").fetchall()
    assert shown == [
        {"mode": "daemon", "queues": ["default", "mail"], "running": 1, "state": "alive", "pid": 1},
        {"mode": "embedded", "queues": ["default"], "running": 0, "state": "alive", "pid": 1},
    ]
    lose(conn, hand)
    assert one(conn, "select state from pgrun.worker_status where mode = 'daemon'") == "lost"


async def test_a_failure_shows_its_last_error_in_parts(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    claimed = await hand.claim_one()
    error = {"type": "OutputInvalid", "message": "no", "raw": "{", "attempt": 1}
    conn.execute("select pgrun.submit('noop', '1')")  # an open one, which is no failure
    await hand.verbs.finish([replace(failed(claimed), error=error)])
    (failure,) = conn.execute("select * from pgrun.failures").fetchall()
    assert (str(failure["run_id"]), failure["error_type"], failure["message"]) == (run_id, "OutputInvalid", "no")
    assert failure["details"] == {"raw": "{", "attempt": 1}
    conn.execute("select pgrun.retry(%s)", [run_id])
    assert one(conn, "select count(*) from pgrun.failures") == 0


def used(tokens: int, cost: str) -> str:
    """Metrics of a run."""
    return f'{{"input_tokens": {tokens}, "output_tokens": 1, "total_tokens": {tokens + 1}, "cost_usd": {cost}}}'


def test_usage_is_summed_over_a_tree_and_over_the_trees_of_a_session(conn: Conn) -> None:
    def run(number: int, parent: int | None, session: str, metrics: str, kind: str = "agent") -> None:
        ids = [f"00000000-0000-7000-8000-{each:012d}" if each is not None else None for each in (number, parent)]
        conn.execute(
            "insert into pgrun.jobs (run_id, parent_run_id, kind, name, status, session_id, metrics)"
            " values (%s, %s, %s, 'Agent', 'pending', %s, %s)",
            [*ids, kind, session, metrics],
        )

    run(1, None, "ada", used(10, "0.5"))
    run(2, 1, "s2", used(20, "0.25"))
    run(3, 2, "s3", used(30, "null"))
    run(4, None, "ada", used(1, "0.25"))
    run(5, None, "ada", "{}")
    run(6, None, "bob", "{}", kind="task")  # has used nothing by itself
    run(7, 6, "s7", used(2, "null"))
    run(8, 99, "s8", used(3, "null"))  # its parent was pruned
    trees = conn.execute("select * from pgrun.usage_by_tree order by root_run_id").fetchall()
    assert [(str(row["root_run_id"])[-1], row["runs"], row["total_tokens"], row["cost_usd"]) for row in trees] == [
        *(("1", 3, 63, Decimal("0.75")), ("4", 1, 2, Decimal("0.25")), ("6", 2, 3, None), ("8", 1, 4, None))
    ]
    sessions = conn.execute("select * from pgrun.usage_by_session order by session_id").fetchall()
    assert [(row["session_id"], row["runs"], row["input_tokens"], row["cost_usd"]) for row in sessions] == [
        *(("ada", 4, 61, Decimal("1.00")), ("bob", 2, 2, None), ("s8", 1, 3, None))
    ]


async def test_usage_is_summed_by_day_model_and_agent_with_failed_and_open_runs(db: PostgresDb, conn: Conn) -> None:
    conn.execute(
        f"""insert into pgrun.jobs (kind, name, status, definition, metrics, started_at, finished_at) values
       ('agent', 'Poet', 'completed', '{{"model": {{"id": "m1"}}}}', '{used(10, "0.5")}', '2026-01-01Z', '2026-01-01 23:00Z'),
       ('agent', 'Poet', 'error', '{{"model": {{"id": "m1"}}}}', '{used(20, "0.25")}', '2026-01-01Z', '2026-01-01 12:00Z'),
       ('agent', 'Poet', 'running', '{{"model": {{"id": "m1"}}}}', '{used(5, "null")}', '2026-01-02Z', null),
       ('agent', 'Poet', 'pending', '{{"model": {{"id": "m1"}}}}', '{{}}', null, null),
       ('task', 'noop', 'completed', null, '{{}}', '2026-01-01Z', '2026-01-01Z')""".encode()
    )
    conn.execute(
        "insert into pgrun.jobs (kind, name, status, metrics, started_at, finished_at) values"
        """ ('agent', 'Tools', 'completed', %s::jsonb || '{"last_answer": {"model": "m2"}}', '2026-01-01Z', '2026-01-01Z')""",
        [used(7, "0.1")],
    )
    rows = conn.execute("select * from pgrun.usage_by_day order by day, model").fetchall()
    found = [
        (
            str(row["day"]),
            row["model"],
            row["name"],
            row["runs"],
            row["input_tokens"],
            row["total_tokens"],
            row["cost_usd"],
        )
        for row in rows
    ]
    assert found == [
        ("2026-01-01", "m1", "Poet", 2, 30, 32, Decimal("0.75")),
        ("2026-01-01", "m2", "Tools", 1, 7, 8, Decimal("0.1")),
        ("2026-01-02", "m1", "Poet", 1, 5, 6, None),
    ]
