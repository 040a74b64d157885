"""Every file of `sql/` runs in psql as it stands, with its parameters as variables."""

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row
from support.database import Conn
from support.hands import hire, submit
from support.schemas import contents
from support.tables import one, status

from pgrun import PostgresDb
from pgrun.db.embedded._binaries import find_binaries
from pgrun.db.migrations import newest
from pgrun.db.statements import sql_dir

WORKER = "00000000-0000-7000-8000-00000000aaaa"
OTHER = "00000000-0000-7000-8000-00000000bbbb"
RUN = "00000000-0000-7000-8000-000000000001"
PAUSED = "00000000-0000-7000-8000-000000000002"

_KEPT = {"metrics": "", "keeps_call": "false"}
_ENDINGS = f'{{"{RUN}": {{"fence": 1, "status": "completed", "output": 42, "metrics": {{}}}}}}'

_SUBMITTED = {
    "name": "It's",
    "queue": "default",
    "session_id": "s",
    "priority": "-1",
    "delay": "0.5",
    "max_attempts": "3",
    "input": '"What\'s new?"',
    "metadata": "{}",
    "definition": "",
    "output_schema": "",
    "multitask": "interrupt",
    "concurrency_key": "k",
    "weight": "7",
}

_SAID = {
    **{"due_at": "2050-01-01T00:00:00Z", "expires": "60", "deadline": "", "timeout": "1.5", "tags": '{import,"it\'s"}'},
    **{"key": "order-7", "key_scope": "", "key_period": "60", "on_duplicate": "debounce", "max_delay": "600"},
}

_CALL = {name: _SUBMITTED[name] for name in ("name", "queue", "priority", "delay", "max_attempts", "metadata")}

SAMPLES: dict[str, dict[str, str]] = {
    "approve_run": {"run_id": PAUSED, "decision": '{"call_id": "call_1", "note": "It\'s fine."}'},
    "beat_worker": {"worker_id": WORKER, "draining": "false", "blocked": "0"},
    "begin_step": {"run_id": RUN, "fence": "1", "number": "2", "name": "refund", "times": "1"},
    "cancel_run": {"run_id": RUN},
    "claim_limited": {"worker_id": WORKER, "queue": "default", "names": "{}", "slots": "1", "yields": "true"},
    "claim_woken": {"worker_id": WORKER, "queue": "default", "names": "{}", "slots": "1"},
    "change_session_state": {"session_id": "s", "changes": '[{"path": ["a"], "op": "set", "value": 1}]'},
    "claim_runs": {
        **{"worker_id": WORKER, "queues": "{default,mail}", "names": "{}", "slots": "5"},
        **{"from_priorities": "{-32768,0}", "from_dues": "{-Infinity,1790000000.5}"},
        **{"yields": "false", "horizon": "10"},
    },
    "count_failed": {"queue": "", "name": "", "error_type": "LeaseLost", "since": "3600"},
    "count_prunable": {"older_than": "0", "status": "cancelled", "queue": "", "name": ""},
    "declare_agent": {
        "name": "Poet",
        "queue": "verse",
        "definition": '{"model": {}}',
        "output_schema": "",
        "max_attempts": "5",
    },
    "expire_runs": {},
    "find_last_events": {"run_ids": f"{{{RUN},{OTHER}}}"},
    "find_queue": {"queue": "default"},
    "find_strays": {"worker_id": WORKER, "older_than": "5"},
    "find_endings": {"endings": _ENDINGS},
    "finish_runs": {"endings": _ENDINGS},
    "forget_left_call": {"run_id": RUN, "response_id": "resp_1", "used": '{"total_tokens": 7}'},
    "forget_workers": {},
    "get_answer_so_far": {"run_id": RUN, "after": "7"},
    "get_attempts": {"run_id": RUN},
    "get_history": {"session_id": "s", "run_id": RUN, "runs": "3", "with_steps": "true"},
    "get_queue_stats": {},
    "get_reason": {"run_id": RUN},
    "get_run": {"run_id": RUN},
    "get_session_state": {"session_id": "s"},
    "get_steps": {"run_id": RUN},
    "get_task_run": {"run_id": RUN},
    "get_unfinished": {"run_id": RUN},
    "get_worker_status": {},
    "is_served": {"queue": "default", "names": "{}"},
    "keep_plans": {},
    "list_runs": {
        **{"status": "", "queue": "", "name": "", "session_id": "", "tags": "{}", "metadata": "{}"},
        "max_rows": "20",
    },
    "look_at_runs": {"run_ids": f"{{{RUN},{OTHER}}}", "or_paused": "{}"},
    "note_call": {"run_id": RUN, "fence": "1", "number": "1", "response_id": "resp_1"},
    "open_sessions": {},
    "park_run": {"run_id": RUN, "fence": "1", "metrics": ""},
    "pause_run": {
        **{"run_id": RUN, "fence": "1", "holds_session": "true"},
        **{"requirements": "[]", "metrics": "", "tools": ""},
    },
    "promise_looks": {"worker_id": WORKER, "seconds": "1", "hands_over": "true"},
    "pause_queue": {"queue": "mail", "seconds": "1.5"},
    "prune_events": {"older_than": "604800", "batch": "100"},
    "prune_runs": {
        **{"older_than": "604800", "status": "error", "queue": "default", "name": "", "batch": "1000", "after": ""},
    },
    "read_events": {"run_ids": f"{{{RUN},{OTHER}}}", "afters": "{0,7}", "page": "100"},
    "record_changes": {
        **{"run_id": RUN, "fence": "1", "number": "1", "kind": "state", "name": "session_state", "data": "{}"},
        **{"duration": "0", "metrics": "", "changes": "[]"},
    },
    "record_sleep": {"run_id": RUN, "fence": "1", "number": "1", "name": "sleep", "seconds": "60"},
    "record_step": {
        **{"run_id": RUN, "fence": "1", "number": "1", "kind": "model_call", "name": "gpt-5-mini"},
        **{"data": "{}", "duration": "0.5", "metrics": ""},
    },
    "register_worker": {
        **{"worker_id": OTHER, "mode": "daemon", "host": "here", "pid": "7", "version": "1"},
        **{"queues": "{default}", "names": "{}", "concurrency": "5", "lease": "15"},
    },
    "release_runs": {"run_ids": f"{{{RUN}}}", "fences": "{1}", "delay": "0", "error": "", "parks": "false", **_KEPT},
    "release_unheard": {
        **{"run_id": RUN, "fence": "1", "heard": "0", "metrics": ""},
        **{"number": "1", "kind": "model_call", "name": "gpt-5-mini", "data": "{}", "duration": "0.5"},
    },
    "rescue_runs": {"worker_id": OTHER},
    "resume_queue": {"queue": "mail"},
    "retry_ended_run": {"run_id": OTHER},
    "retry_failed": {"queue": "default", "name": "", "error_type": "", "since": "", "until": "", "batch": "100"},
    "retry_run": {"run_id": RUN, "fence": "1", "delay": "1.5", "error": "{}", **_KEPT},
    "set_queue": {"queue": "It's", "limits": '{"concurrency": 5, "rate": 0.5, "per": 60}'},
    "steer_run": {"run_id": RUN, "message": "It's urgent.", "message_id": OTHER},
    "stop_worker": {"worker_id": WORKER},
    "take_left_calls": {"names": "{}", "queues": "{default}", "run_id": ""},
    "submit_by_name": {**_SUBMITTED, **_SAID, "delay": "0", "run_id": ""},
    "submit_call": {**_CALL, "run_id": "00000000-0000-7000-8000-00000000eeee", "input": "42"},
    "submit_calls": {
        **_CALL,
        **{"run_ids": "{00000000-0000-7000-8000-00000000dddd}", "inputs": "[42]", "session_id": ""},
        **{"concurrency_key": "", "weight": ""},
    },
    "submit_runs": {
        "common": '{"name": "It\'s", "queue": "default", "tags": ["a"], "on_duplicate": "replace"}',
        **{"run_ids": f"{{{OTHER[:-1]}c,{OTHER[:-1]}d}}", "keys": "{a,b}", "inputs": "[1,2]"},
    },
    "submit_run": {
        **_SUBMITTED,
        **{"run_id": "00000000-0000-7000-8000-00000000cccc", "kind": "task"},
        **{"session_table": "", "parent_run_id": "", "content_type": "", "streams": "true", "context": ""},
    },
    "watch_run": {"run_id": RUN},
    "write_progress": {"progress": f'{{"{RUN}": {{"fence": 1, "progress": {{"fraction": 0.5}}}}}}'},
    "write_events": {"events": f'{{"{RUN}": {{"fence": 1, "seq": 1, "events": [["text", {{"text": "Hi"}}]]}}}}'},
}

_SCHEDULE = {
    **{"schedule": "It's nightly", "name": "It's", "input": "{}", "queue": "default", "cron": "0 9 * * *", "every": ""},
    **{"at": "", "timezone": "Europe/Berlin", "missed": "all", "options": '{"priority": 1}'},
}
_TICK = {"schedule": "nightly", "changed_at": "2026-01-01 00:00Z", "expected": "2026-01-02 00:00Z", "next_at": ""}
SAMPLES |= {
    "advance_moments": {"seconds": "3600"},
    "find_submitted": {"name": "noop", "max_rows": "10"},
    "find_work": {"worker_id": WORKER, "queues": "{default}"},
    "declare_schedule": _SCHEDULE,
    "fire_schedule": {**_TICK, "ticks": '{"2026-01-02 00:00Z"}'},
    "list_schedules": {"schedule": ""},
    "look_at_schedules": {"most": "100"},
    "pause_schedule": {"schedule": "nightly"},
    "plan_schedule": {**_TICK, "error": "wrong"},
    "remove_schedule": {"schedule": "nightly"},
    "resume_schedule": {"schedule": "nightly"},
    "run_schedule": {"schedule": "nightly", "run_id": OTHER},
    "set_schedule": _SCHEDULE,
}

FILES = sorted(path.stem for path in (sql_dir() / "queries").glob("*.sql"))
Psql = Callable[..., str]


@pytest.fixture(scope="module")
def psql() -> Psql:
    """Executes a file with variables and returns what psql prints."""
    program = shutil.which("psql") or str(find_binaries() / "psql")

    def run(dsn: str, file: Path, variables: Mapping[str, str]) -> str:
        given = [f"--set={name}={value}" for name, value in variables.items()]
        command = [program, dsn, "--no-psqlrc", "--set=ON_ERROR_STOP=1", *given, f"--file={file}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=15)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def running(conn: Conn) -> None:
    """One run in the hands of a worker, one that was cancelled, and one that waits for a person."""
    conn.execute(
        "insert into pgrun.workers (worker_id, mode, host, pid, version, queues, names, concurrency, lease, lease_until) "
        "values (%s, 'daemon', 'here', 1, '0', '{default}', '{}', 1, '1 h', now() + interval '1 h')",
        [WORKER],
    )
    conn.execute(
        "insert into pgrun.jobs (run_id, kind, name, status, fence, attempt, worker_id, finished_at) values "
        "(%s, 'agent', 'noop', 'running', 1, 1, %s, null), (%s, 'task', 'noop', 'cancelled', 0, 0, null, now())",
        [RUN, WORKER, OTHER],
    )
    conn.execute(
        "insert into pgrun.jobs (run_id, name, status, requirements) values (%s, 'noop', 'paused', %s)",
        [PAUSED, '[{"kind": "confirmation", "step": 2, "call_id": "call_1", "name": "refund", "arguments": {}}]'],
    )
    conn.execute("insert into pgrun.schedules (schedule, name, every) values ('nightly', 'noop', '1 h')")


def test_every_file_has_a_sample() -> None:
    assert sorted(SAMPLES) == FILES


@pytest.mark.parametrize("name", FILES)
def test_a_sample_names_all_variables_of_its_file_and_no_others(name: str) -> None:
    text = (sql_dir() / "queries" / f"{name}.sql").read_text(encoding="utf-8")
    assert {*re.findall(r":'(\w+)'", text)} == SAMPLES[name].keys()


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("name", FILES)
def test_a_query_runs_in_psql(dsn: str, psql: Psql, name: str) -> None:
    assert psql(dsn, sql_dir() / "queries" / f"{name}.sql", SAMPLES[name])


@pytest.mark.usefixtures("running")
def test_what_is_done_in_psql_is_done(dsn: str, conn: Conn, psql: Psql) -> None:
    queries = sql_dir() / "queries"
    psql(dsn, queries / "finish_runs.sql", SAMPLES["finish_runs"])
    assert status(conn, RUN) == "completed"
    psql(dsn, queries / "submit_run.sql", SAMPLES["submit_run"])
    assert one(conn, "select input from pgrun.jobs where name = 'It''s'") == "What's new?"
    assert "pending" in psql(dsn, queries / "retry_ended_run.sql", SAMPLES["retry_ended_run"])
    assert OTHER in psql(dsn, queries / "list_runs.sql", SAMPLES["list_runs"] | {"status": "pending"})


async def test_the_migrations_run_in_psql_and_give_the_same_schema(
    dsn: str, conn: Conn, new_database: Callable[..., str], psql: Psql
) -> None:
    by_hand = new_database()
    for file in sorted((sql_dir() / "migrations").glob("*.sql")):
        psql(by_hand, file, {})
    with psycopg.connect(by_hand, autocommit=True, row_factory=dict_row) as look:
        assert contents(look, "pgrun") == contents(conn, "pgrun")
        look.execute(
            "insert into pgrun.migrations (number, name) select n, 'by hand' from generate_series(1, %s) n",
            [newest()],
        )
    async with PostgresDb(by_hand, worker="external") as db:
        await submit(db)
        assert len(await (await hire(db)).claim()) == 1
