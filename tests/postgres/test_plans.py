"""The plans of the statements that run all the time, with a million ended runs in the table: each keeps its index."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from support.database import Conn
from support.tables import one, parameters_of

from pgrun.db.statements import statement

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

WORKER = "00000000-0000-7000-8000-000000000001"

FILL = """
insert into pgrun.queues (queue) values ('mail');
insert into pgrun.workers (worker_id, mode, host, pid, version, queues, names, concurrency, lease, lease_until)
select format('00000000-0000-7000-8000-%s', lpad(n::text, 12, '0'))::uuid, 'daemon', 'here', 1, '0',
       '{default,mail}', '{noop}', 50, '15 s', now() + make_interval(secs => n)
  from generate_series(1, 5) n;

alter table pgrun.jobs disable trigger user;
insert into pgrun.jobs (kind, name, queue, status, fence, attempt, worker_id, session_id, session_seq,
                        created_at, started_at, finished_at, streams)
select 'task', 'noop', case n % 10 when 0 then 'mail' else 'default' end,
       case n % 20 when 0 then 'error' else 'completed' end, 1, 1, '00000000-0000-7000-8000-000000000001',
       case n % 2 when 0 then 's' || n / 10 end, case n % 2 when 0 then n % 10 + 1 end, at, at, at, n % 100 = 0
  from generate_series(1, 1000000) n, lateral (select now() - make_interval(secs => n) as at) t;
insert into pgrun.jobs (kind, name, due_at, priority)
select 'task', 'noop', now() + make_interval(secs => 3600 + n), n % 3 from generate_series(1, 50000) n;
insert into pgrun.jobs (kind, name, due_at, priority, session_id, session_seq, held)
select 'task', 'noop', now() - make_interval(secs => n), n % 3,
       case when n > 4000 then 's' || n end, 1, case when n > 4500 then 'session' end
  from generate_series(1, 5000) n;
insert into pgrun.jobs (kind, name, status, fence, attempt, worker_id, started_at)
select 'task', 'noop', 'running', 1, 1, format('00000000-0000-7000-8000-%s', lpad((n % 6 + 1)::text, 12, '0'))::uuid, now()
  from generate_series(1, 200) n;
alter table pgrun.jobs enable trigger user;
insert into pgrun.events (run_id, seq, kind, data, attempt)
select j.run_id, seq, 'text', '{"text": "so"}', 1 from pgrun.jobs j, generate_series(1, 20) seq where j.streams;
analyze pgrun.jobs;
analyze pgrun.events;
analyze pgrun.workers;
"""


@pytest.fixture(scope="module")
def filled(server: str, template: str) -> Iterator[Conn]:
    """A database with a million ended, 50,000 scheduled, 5,000 pending and 200 running runs."""
    name = f"{template}_plans"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f'create database "{name}" template "{template}"'.encode())
        try:
            own = make_conninfo(server, dbname=name)
            with psycopg.connect(own, autocommit=True, prepare_threshold=None, row_factory=dict_row) as conn:
                conn.execute(FILL)
                yield conn
        finally:
            admin.execute(f'drop database "{name}" with (force)'.encode())


def some_ids(conn: Conn, status: str, many: int) -> list[str]:
    rows = conn.execute("select run_id from pgrun.jobs where status = %s limit %s", [status, many]).fetchall()
    return [str(row["run_id"]) for row in rows]


def finish_params(conn: Conn, many: int) -> dict[str, Any]:
    ending = {"fence": 1, "status": "completed", "output": {}, "metrics": {}}
    return {"endings": json.dumps({str(run_id): ending for run_id in some_ids(conn, "running", many)})}


def look_params(conn: Conn, many: int) -> dict[str, Any]:
    run_ids = some_ids(conn, "completed", many)
    return {"run_ids": run_ids, "or_paused": run_ids}


def told_params(conn: Conn, many: int) -> dict[str, Any]:
    told = {"fence": 1, "seq": 1, "events": [["text", {"text": "so"}]] * 3}
    return {"events": json.dumps({str(run_id): told for run_id in some_ids(conn, "running", many)})}


def places_params(conn: Conn, many: int) -> dict[str, Any]:
    return {"run_ids": some_ids(conn, "completed", many), "afters": [7] * many, "page": 200}


def claim_params(slots: int, *, queues: list[str], yields: bool = False) -> dict[str, Any]:
    begin = {"from_priorities": [-32768] * len(queues), "from_dues": [float("-inf")] * len(queues)}
    look = {"names": ["noop"], "slots": slots, "yields": yields, "horizon": 10}
    return {"worker_id": WORKER, "queues": queues, **begin, **look}


def prune_params(*, batch: int, status: str = "", queue: str = "", after: str = "") -> dict[str, Any]:
    """What ended more than a day ago: more than nine tenths of the table."""
    return {"older_than": 86_400.0, "status": status, "queue": queue, "name": "", "batch": batch, "after": after}


CLAIMED = {"jobs_due", "jobs_pkey", "jobs_keyed", "jobs_keyed_due"}  # the last two are empty

CASES: dict[str, tuple[str, Callable[[Conn], dict[str, Any]], set[str]]] = {
    "claim, woken": (
        "claim_woken",
        lambda _: {"worker_id": WORKER, "queue": "default", "names": ["noop"], "slots": 50},
        {"jobs_due", "jobs_pkey"},
    ),
    "claim 1": ("claim_runs", lambda _: claim_params(1, queues=["default"]), CLAIMED),
    "claim 100": ("claim_runs", lambda _: claim_params(100, queues=["default", "mail"]), CLAIMED),
    "claim, yielding": (
        "claim_runs",
        lambda _: claim_params(50, queues=["default"], yields=True),
        CLAIMED,
    ),
    "claim, nothing there": ("claim_runs", lambda _: claim_params(50, queues=["none"]), CLAIMED),
    "finish 1": ("finish_runs", lambda conn: finish_params(conn, 1), {"jobs_pkey"}),
    "finish 200": ("finish_runs", lambda conn: finish_params(conn, 200), {"jobs_pkey"}),
    "find endings": ("find_endings", lambda conn: finish_params(conn, 200), {"jobs_pkey"}),
    "rescue": ("rescue_runs", lambda _: {"worker_id": WORKER}, {"jobs_running", "jobs_pkey"}),
    "look at 1": ("look_at_runs", lambda conn: look_params(conn, 1), {"jobs_pkey"}),
    "look at 1000": ("look_at_runs", lambda conn: look_params(conn, 1000), {"jobs_pkey"}),
    "beat": ("beat_worker", lambda _: {"worker_id": WORKER, "draining": False, "blocked": 0}, {"jobs_running"}),
    "strays": ("find_strays", lambda _: {"worker_id": WORKER, "older_than": 5}, {"jobs_running"}),
    "stop": ("stop_worker", lambda _: {"worker_id": WORKER}, {"jobs_running"}),
    "retry": (
        "retry_run",
        lambda conn: {
            "run_id": some_ids(conn, "running", 1)[0],
            "fence": 1,
            "delay": 0,
            "error": "{}",
            "metrics": "{}",
            "keeps_call": True,
        },
        {"jobs_pkey"},
    ),
    "release": (
        "release_runs",
        lambda conn: {
            "run_ids": some_ids(conn, "running", 50),
            "fences": [1] * 50,
            "delay": 0,
            "error": "",
            "metrics": "",
            "keeps_call": True,
            "parks": False,
        },
        {"jobs_pkey", "jobs_running"},
    ),
    "get": ("get_run", lambda conn: {"run_id": some_ids(conn, "completed", 1)[0]}, {"jobs_pkey"}),
    "history": (
        "get_history",
        lambda conn: {"session_id": "s7", "run_id": some_ids(conn, "pending", 1)[0], "runs": 3, "with_steps": True},
        {"jobs_history", "jobs_pkey"},
    ),
    "record step": (
        "record_step",
        lambda conn: {
            **{"run_id": some_ids(conn, "running", 1)[0], "fence": 1, "number": 1, "kind": "model_call", "name": "m"},
            **{"data": "{}", "duration": 0.5, "metrics": ""},
        },
        {"jobs_pkey"},
    ),
    "open sessions": ("open_sessions", lambda _: {}, {"jobs_session", "jobs_children"}),
    "begin step": (
        "begin_step",
        lambda conn: {"run_id": some_ids(conn, "running", 1)[0], "fence": 1, "number": 2, "name": "n", "times": 1},
        {"jobs_pkey"},
    ),
    "pause": (
        "pause_run",
        lambda conn: {
            **{"run_id": some_ids(conn, "running", 1)[0], "fence": 1, "holds_session": False},
            **{"requirements": "[]", "metrics": "", "tools": ""},
        },
        {"jobs_pkey"},
    ),
    "unfinished": ("get_unfinished", lambda conn: {"run_id": some_ids(conn, "running", 1)[0]}, {"jobs_pkey"}),
    "note call": (
        "note_call",
        lambda conn: {"run_id": some_ids(conn, "running", 1)[0], "fence": 1, "number": 1, "response_id": "resp_1"},
        {"jobs_pkey"},
    ),
    "left calls": ("take_left_calls", lambda _: {"names": [], "queues": ["default"], "run_id": ""}, {"jobs_pkey"}),
    "write events 1": ("write_events", lambda conn: told_params(conn, 1), {"jobs_pkey"}),
    "write events 200": ("write_events", lambda conn: told_params(conn, 200), {"jobs_pkey"}),
    "read events 1": ("read_events", lambda conn: places_params(conn, 1), {"jobs_pkey", "events_pkey"}),
    "read events 100": ("read_events", lambda conn: places_params(conn, 100), {"jobs_pkey", "events_pkey"}),
    "last events": (
        "find_last_events",
        lambda conn: {"run_ids": some_ids(conn, "running", 100)},
        {"events_pkey"},
    ),
    "answer so far": (
        "get_answer_so_far",
        lambda conn: {"run_id": some_ids(conn, "completed", 1)[0], "after": 7},
        {"events_pkey"},
    ),
    "prune events": (
        "prune_events",
        lambda _: {"older_than": 86_400.0, "batch": 100},
        {"jobs_streamed", "jobs_pkey", "events_pkey"},
    ),
    "release unheard": (
        "release_unheard",
        lambda conn: {
            **{"run_id": some_ids(conn, "running", 1)[0], "fence": 1, "heard": 0, "metrics": ""},
            **{"number": "1", "kind": "model_call", "name": "m", "data": "{}", "duration": 0.5},
        },
        {"jobs_pkey"},
    ),
    "record sleep": (
        "record_sleep",
        lambda conn: {
            **{"run_id": some_ids(conn, "running", 1)[0], "fence": 1, "number": 1, "name": "sleep", "seconds": 60}
        },
        {"jobs_pkey"},
    ),
    "task run": ("get_task_run", lambda conn: {"run_id": some_ids(conn, "running", 1)[0]}, {"jobs_pkey"}),
    "attempts": ("get_attempts", lambda conn: {"run_id": some_ids(conn, "running", 1)[0]}, {"attempts_pkey"}),
    "write progress": (
        "write_progress",
        lambda conn: {
            "progress": json.dumps({run_id: {"fence": 1, "progress": {}} for run_id in some_ids(conn, "running", 200)})
        },
        {"jobs_pkey"},
    ),
    "count failed": (
        "count_failed",
        lambda _: {"queue": "mail", "name": "", "error_type": "ValueError", "since": "3600"},
        {"jobs_failed"},
    ),
    "list": (
        "list_runs",
        lambda _: {
            **{"status": "", "queue": "", "name": "", "session_id": "", "tags": [], "metadata": "{}"},
            "max_rows": 20,
        },
        {"jobs_pkey"},
    ),
    "expire": ("expire_runs", lambda _: {}, {"jobs_limited", "jobs_pkey"}),
    "prune 1000": ("prune_runs", lambda _: prune_params(batch=1000), {"jobs_finished", "jobs_pkey"}),
    "prune, filtered": (
        "prune_runs",
        lambda _: prune_params(batch=50, status="error", queue="mail"),
        {"jobs_finished", "jobs_failed", "jobs_pkey"},
    ),
    "prune, nothing matches": (
        "prune_runs",
        lambda _: prune_params(batch=30, status="cancelled", after="2000-01-01T00:00:00+00:00"),
        {"jobs_finished", "jobs_pkey"},
    ),
}


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("case", CASES)
def test_a_statement_keeps_its_index(filled: Conn, case: str, mode: str) -> None:
    """With the values at hand and, as the pool does after five executions, without them."""
    name, params, indexes = CASES[case]
    nodes = plan(filled, name, params(filled), mode)
    on_tables = [node for node in nodes if node.get("Relation Name") in ("jobs", "events")]
    assert [node for node in on_tables if node["Node Type"] == "Seq Scan"] == []
    used = {node["Index Name"] for node in nodes if "Index Name" in node}
    assert {index for index in used if index.startswith("jobs_")} <= indexes
    assert used & indexes


@pytest.mark.parametrize(
    "case",
    [
        "claim, woken",
        "claim 1",
        "claim 100",
        "claim, nothing there",
        "finish 200",
        "rescue",
        "beat",
        "prune, nothing matches",
        "expire",
    ],
)
def test_a_statement_reads_no_more_than_it_must(filled: Conn, case: str) -> None:
    name, params, _ = CASES[case]
    values = params(filled)
    with filled.transaction(force_rollback=True):
        nodes = plan(filled, name, values, "force_generic_plan", analyze=True)
    rows = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in nodes
        if node.get("Relation Name") == "jobs" and "Scan" in node["Node Type"]
    )
    assert rows < 1000  # far from the 5,000 that are due


def test_a_claim_does_not_walk_over_what_had_ended_before_the_last_vacuum(filled: Conn) -> None:
    """However small a part of the table it is: by itself Postgres leaves the entries of so few in the indexes."""
    filled.execute(
        "insert into pgrun.jobs (kind, name, queue) select 'task', 'noop', 'mail' from generate_series(1, 3000)"
    )
    filled.execute("update pgrun.jobs set status = 'running' where queue = 'mail' and status = 'pending'")
    filled.execute(
        "update pgrun.jobs set status = 'completed', finished_at = now() where queue = 'mail' and status = 'running'"
    )
    filled.execute("vacuum pgrun.jobs")
    name, params, _ = CASES["claim, woken"]
    nodes = plan(filled, name, {**params(filled), "queue": "mail"}, "force_generic_plan", analyze=True)
    walks = [node for node in nodes if node.get("Index Name") == "jobs_due"]
    assert walks
    assert max(walk["Shared Hit Blocks"] + walk["Shared Read Blocks"] for walk in walks) < 10


@pytest.mark.parametrize("name", ["claim_woken", "claim_runs"])
def test_a_claim_with_slots_to_spare_does_not_walk_over_what_is_scheduled(filled: Conn, name: str) -> None:
    values = {"queue": "later", **claim_params(50, queues=["later"])}
    with filled.transaction(force_rollback=True):
        filled.execute(
            "insert into pgrun.jobs (name, queue, priority, due_at) "
            "select 'noop', 'later', n % 3, now() + make_interval(secs => n) from generate_series(1, 50000) n"
        )
        filled.execute("insert into pgrun.jobs (name, queue, priority) values ('noop', 'later', 1)")
        nodes = plan(filled, name, values, "force_generic_plan", analyze=True)
    walks = [node for node in nodes if node.get("Index Name") == "jobs_due"]
    assert sum(walk["Actual Rows"] for walk in walks) >= 1
    assert sum(walk["Shared Hit Blocks"] + walk["Shared Read Blocks"] for walk in walks) < 50  # of 600


@pytest.mark.parametrize("queue", ["default", "keyed"])
def test_a_claim_within_limits_reads_no_more_than_it_must(filled: Conn, queue: str) -> None:
    """Its plans are inside a function; what they read is counted by the server."""
    with filled.transaction(force_rollback=True):
        filled.execute(statement("keep_plans", "pgrun").encode())
        filled.execute(
            "insert into pgrun.queues (queue, concurrency, key_concurrency, rate) values ('keyed', 500, 60, 500) "
            "on conflict do nothing"
        )
        filled.execute("update pgrun.queues set concurrency = 500 where queue = 'default'")
        filled.execute(
            "insert into pgrun.jobs (kind, name, queue, concurrency_key) "
            "select 'task', 'noop', 'keyed', case n % 100 when 0 then 'k' || n else 'a' end from generate_series(1, 20000) n"
        )
        before = reads(filled)
        claimed = filled.execute(
            "select from pgrun._claim_limited(%s, %s, '{noop}', 50, false) where run_id is not null", [WORKER, queue]
        )
        assert claimed.rowcount == 50
        after = reads(filled)
    assert after["seq_tup_read"] == before["seq_tup_read"]
    assert after["idx_tup_fetch"] - before["idx_tup_fetch"] < 1000


def reads(conn: Conn) -> dict[str, int]:
    """What this transaction has read of jobs so far."""
    row = conn.execute(
        "select seq_tup_read, idx_tup_fetch from pg_stat_xact_user_tables where relid = 'pgrun.jobs'::regclass"
    ).fetchone()
    assert row
    return row


def test_a_function_that_forbids_a_way_is_not_compiled_for_the_price_of_it(filled: Conn) -> None:
    """Before Postgres 18 a forbidden way costs 10^10 where there is no other; `jit` takes that for a long query."""
    forbids = filled.execute(
        "select proname, proconfig from pg_proc "
        "where pronamespace = 'pgrun'::regnamespace and proconfig::text like '%enable_%=off%'"
    ).fetchall()
    assert forbids
    assert [each["proname"] for each in forbids if "jit=off" not in each["proconfig"]] == []


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("case", ["prune 1000", "prune, filtered"])
def test_pruning_takes_its_order_from_the_index(filled: Conn, case: str, mode: str) -> None:
    """Sorting would read everything that is old enough, for every batch."""
    name, params, _ = CASES[case]
    nodes = plan(filled, name, params(filled), mode)
    assert [node for node in nodes if "Sort" in node["Node Type"]] == []
    on_jobs = [
        str(node.get("Index Name"))
        for node in nodes
        if node.get("Relation Name") == "jobs" and "Scan" in node["Node Type"]
    ]
    assert [each.replace("failed", "finished") for each in on_jobs] == ["jobs_finished", "jobs_finished", "jobs_pkey"]


@pytest.mark.parametrize(
    ("why", "query", "index"),
    [
        (
            "who holds a key",
            "select from pgrun.jobs j where j.name = 'noop' and j.key = any ('{a,b}') and pgrun._holds_key(j)",
            "jobs_key",
        ),
        (
            "a repeated submission",
            "select from pgrun.jobs where resubmitted_as = any ('{00000000-0000-7000-8000-00000000dddd}')",
            "jobs_resubmitted",
        ),
        (
            "place in the session",
            "select from pgrun.jobs where session_id = 's4321' and finished_at is null",
            "jobs_session",
        ),
        ("queue_stats", "select * from pgrun.queue_stats", "jobs_finished"),
        (
            "usage_by_tree",
            "select * from pgrun.usage_by_tree where root_run_id = '00000000-0000-7000-8000-00000000dddd'",
            "jobs_children",
        ),
        (
            "children",
            "select from pgrun.jobs where parent_run_id = '00000000-0000-7000-8000-00000000dddd' and finished_at is null",
            "jobs_children",
        ),
    ],
)
def test_the_triggers_and_views_find_theirs_too(filled: Conn, why: str, query: str, index: str) -> None:
    found = one(filled, f"explain (format json) {query}")
    assert index in {node.get("Index Name") for node in flatten(found[0]["Plan"])}, why


def plan(conn: Conn, name: str, values: dict[str, Any], mode: str, *, analyze: bool = False) -> list[dict[str, Any]]:
    """All nodes of the plan of a prepared statement."""
    sql, order = parameters_of(statement(name, "pgrun"))
    conn.execute("deallocate all")
    conn.execute(f"set plan_cache_mode = {mode}".encode())
    conn.execute(f"prepare examined as {sql}".encode())
    literals = ", ".join(psycopg.sql.Literal(values[key]).as_string(conn) for key in order)
    call = f"execute examined ({literals})" if order else "execute examined"
    explained = one(conn, f"explain ({'analyze, buffers, ' if analyze else ''}format json) {call}")
    return [*flatten(explained[0]["Plan"])]


def flatten(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from flatten(child)
