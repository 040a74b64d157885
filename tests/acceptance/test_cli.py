"""The command line as an operator types it: its output, its exit code; as a process where that is what matters."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import pytest
from support.commands import Commands
from support.database import Conn
from support.tables import one
from typer.testing import CliRunner

from pgrun.cli.app import app

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def process(dsn: str) -> Cli:
    """Runs `pgrun …` against the test's database."""

    def run(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "pgrun", *words],
            env={**os.environ, "PGRUN_DATABASE_URL": dsn, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def cli(dsn: str) -> Cli:
    """The same within this process."""
    return Commands(PGRUN_DATABASE_URL=dsn)


def test_a_run_can_be_submitted_listed_shown_cancelled_and_retried(process: Cli) -> None:
    submitted = process("submit", "CityFacts", "Tell me about Rome.", "--model", "gpt-5-mini", "--session-id", "s")
    run_id = submitted.stdout.strip()
    assert submitted.returncode == 0
    assert run_id in process("ls", "--status", "pending").stdout
    shown = json.loads(process("show", run_id, "--json").stdout)
    assert (shown["input"], shown["kind"], shown["session_id"]) == ("Tell me about Rome.", "agent", "s")
    assert process("cancel", run_id).stdout == f"{run_id} cancelled\n"
    assert process("retry", run_id).stdout == f"{run_id} pending\n"
    assert json.loads(process("ls", "--json").stdout)[0]["status"] == "pending"
    twice = process("submit", "CityFacts", "Rome?", "--model", "gpt-5-mini", "--max-attempts", "2").stdout.strip()
    assert json.loads(process("show", twice, "--json").stdout)["max_attempts"] == 2


def test_a_run_is_shown_with_its_steps(cli: Cli, conn: Conn) -> None:
    run_id = cli("submit", "CityFacts", "Rome?", "--model", "gpt-5-mini").stdout.strip()
    assert json.loads(cli("show", run_id, "--json").stdout)["steps"] == []
    steps = (
        ("model_call", "gpt-5-mini", {"text": "", "calls": [{"name": "weather"}, {"name": "news"}]}),
        ("tool_call", "weather", {"result": "sun"}),
        ("tool_call", "news", {"error": "ValueError: none"}),
        ("model_call", "gpt-5-mini", {"text": "no JSON"}),
    )
    for number, (kind, name, data) in enumerate(steps, 1):
        conn.execute(
            "insert into pgrun.steps (run_id, step, kind, name, attempt, data, duration) values (%s, %s, %s, %s, 1, %s, 0.25)",
            [run_id, number, kind, name, json.dumps(data)],
        )
    assert cli("show", run_id).stdout.splitlines()[-5:] == [
        "step  kind        name        duration  result",
        "1     model_call  gpt-5-mini  0.25 s    calls weather, news",
        "2     tool_call   weather     0.25 s    sun",
        "3     tool_call   news        0.25 s    ValueError: none",
        "4     model_call  gpt-5-mini  0.25 s    no JSON",
    ]
    assert [step["duration"] for step in json.loads(cli("show", run_id, "--json").stdout)["steps"]] == [0.25] * 4


def test_schedules_can_be_added_listed_paused_run_and_removed(cli: Cli, conn: Conn) -> None:
    def schedules(*words: str) -> str:
        done = cli("schedules", *words)
        return done.stdout if done.returncode == 0 else f"exit code {done.returncode}"

    when = ("--cron", "0 9 * * MON-FRI", "--timezone", "Europe/Berlin", "--options", '{"priority": 2}')
    assert schedules("add", "morning", "News", "What is new?", *when) == "morning added\n"
    assert schedules("add", "wrong", "News", "--cron", "0 25 * * *") == "exit code 2"
    assert schedules("pause", "morning") == "morning paused\n"
    (head, shown) = schedules().splitlines()
    assert head.split()[:3] == ["schedule", "name", "ticks"]
    assert "0 9 * * MON-FRI" in shown
    assert "paused" in shown
    run_id = schedules("run-now", "morning").strip()
    assert one(conn, "select array[run_id::text, name, input #>> '{}', priority::text] from pgrun.jobs") == [
        *(run_id, "News", "What is new?", "2")
    ]
    assert schedules("resume", "morning", "--json") == '{"schedule":"morning","done":"resumed"}\n'
    (listed,) = json.loads(schedules("--json"))
    assert (listed["cron"], listed["timezone"], listed["paused_at"]) == ("0 9 * * MON-FRI", "Europe/Berlin", None)
    assert schedules("remove", "morning") == "morning removed\n"
    assert schedules("remove", "morning") == "exit code 2"
    assert schedules("--json", "remove", "morning") == "exit code 2"  # and not with an option that is lost


def test_a_worker_executes_what_was_submitted_and_wait_prints_it(cli: Cli, dsn: str) -> None:
    from pgrun.testing import ModelServer

    with ModelServer() as models:
        models.script("Rome is old.")
        environment = {**os.environ, **models.environ, "PGRUN_DATABASE_URL": dsn}
        run_id = cli("submit", "CityFacts", "Tell me about Rome.", "--model", "gpt-5-mini").stdout.strip()
        worker = subprocess.Popen([sys.executable, "-m", "pgrun", "worker"], env=environment, stderr=subprocess.PIPE)
        try:
            waited = cli("wait", run_id, "--timeout", "30")
            assert (waited.stdout, waited.returncode) == ("Rome is old.\n", 0)
            stats = json.loads(cli("stats", "--json").stdout)
            assert [row["mode"] for row in stats["workers"]] == ["daemon"]
            assert stats["queues"][0]["finished_last_minute"] == 1
        finally:
            worker.terminate()
            _, log = worker.communicate()
    assert worker.returncode == 0, log


def test_waiting_for_a_cancelled_run_fails(cli: Cli) -> None:
    run_id = cli("submit", "x", "hello", "--model", "m").stdout.strip()
    cli("cancel", run_id)
    waited = cli("wait", run_id)
    assert (waited.returncode, waited.stdout) == (1, "")
    assert "cancelled" in waited.stderr


def test_something_is_said_to_an_open_run(cli: Cli, conn: Conn) -> None:
    run_id = cli("submit", "x", "Rome?", "--model", "m").stdout.strip()
    said = cli("steer", run_id, "And Oslo.")
    assert (said.returncode, said.stdout) == (0, f"{run_id} pending\n")
    assert one(conn, "select steering -> 0 ->> 'content' from pgrun.jobs") == "And Oslo."
    cli("cancel", run_id)
    refused = cli("steer", run_id, "Wait!")
    assert (refused.returncode, "has ended (cancelled)" in refused.stderr) == (1, True)


def test_a_run_says_what_it_does_in_a_busy_session(cli: Cli, conn: Conn) -> None:
    words = ("submit", "x", "Rome?", "--model", "m", "--session-id", "s", "--multitask")
    assert cli(*words, "enqueue").returncode == 0
    refused = cli(*words, "reject")
    assert (refused.returncode, 'session "s" is busy' in refused.stderr) == (1, True)
    assert cli(*words, "interrupt").returncode == 0
    assert one(conn, "select array_agg(status order by session_seq) from pgrun.jobs") == ["cancelled", "pending"]


def test_a_run_is_submitted_under_a_key_and_found_by_what_was_said_with_it(cli: Cli, conn: Conn) -> None:
    said = ("--key", "7", "--tag", "import", "--tag", "night", "--metadata", '{"order": 7}', "--expires", "1h")
    also = ("--due-at", "2050-01-01T00:00:00+0100", "--max-attempts", "2", "--timeout", "1.5")
    run_id = cli("submit", "ship", "{}", *said, *also).stdout.strip()
    assert cli("submit", "ship", "{}", "--key", "7").stdout.strip() == run_id
    row = conn.execute("select *, expires_at - due_at as lasts from pgrun.jobs").fetchone()
    assert row is not None
    assert (row["tags"], row["timeout"], row["max_attempts"]) == (["import", "night"], 1.5, 2)
    assert (row["due_at"], row["lasts"]) == (datetime(2049, 12, 31, 23, tzinfo=UTC), timedelta(hours=1))
    assert run_id in cli("ls", "--tag", "night", "--tag", "import", "--metadata", "order=7").stdout
    assert cli("ls", "--tag", "day").stdout == cli("ls", "--metadata", "order=8").stdout == "no runs\n"
    assert cli("ls", "--metadata", "order").returncode == 2
    assert "none of pending" in cli("submit", "ship", "{}", "--key", "7", "--key-scope", "now").stderr


def test_steps_of_every_kind_are_shown(cli: Cli, conn: Conn) -> None:
    run_id = cli("submit", "x", "Rome?", "--model", "m").stdout.strip()
    conn.execute(
        "insert into pgrun.steps (run_id, step, kind, name, attempt, data, duration) values "
        "(%(run)s, 1, 'state', 'session_state', 1, '[7]', 0), (%(run)s, 2, 'hook', 'check', 1, '{\"left\": 7}', 0), "
        "(%(run)s, 3, 'message', 'steer', 1, '[\"Quick!\"]', 0)",
        {"run": run_id},
    )
    shown = cli("show", run_id).stdout
    assert all(word in shown for word in ("[7]", '{"left": 7}', "Quick!"))


def test_what_went_wrong_is_shown_with_its_traceback(cli: Cli, conn: Conn) -> None:
    run_id = cli("submit", "x", "Rome?", "--model", "m").stdout.strip()
    error = '{"type": "KeyError", "message": "no", "traceback": "Traceback: in look_up"}'
    conn.execute("update pgrun.jobs set status = 'running', attempt = 1, fence = 1, started_at = now()")
    conn.execute("update pgrun.jobs set status = 'error', error = %s, finished_at = now()", [error])
    shown = cli("show", run_id).stdout
    assert all(word in shown for word in ("failed", "KeyError", "Traceback: in look_up"))
    assert shown.count("Traceback") == 1
    assert json.loads(cli("show", run_id, "--json").stdout)["attempts"][0]["outcome"] == "failed"


def test_many_that_failed_are_counted_and_then_retried(cli: Cli, conn: Conn) -> None:
    conn.execute(
        "insert into pgrun.jobs (name, status, error, finished_at) select 'noop', 'error', %s, now() - make_interval(hours => h) "
        "from unnest('{0,1,2,9}'::int[]) h",
        ['{"type": "KeyError", "message": "no"}'],
    )
    assert cli("retry", "--error-type", "KeyError", "--since", "5h", "--dry-run").stdout == "would retry 3 runs\n"
    assert cli("retry", "--name", "noop", "--since", "90m", "--limit", "1", "--json").stdout == '{"retried":1}\n'
    assert cli("retry", "--queue", "mail").stdout == "retried 0 runs\n"
    assert cli("retry", "--queue", "default").stdout == "retried 3 runs\n"
    assert one(conn, "select array_agg(distinct status) from pgrun.jobs") == ["pending"]


def test_waiting_too_long_says_what_the_run_waits_for(cli: Cli) -> None:
    cli("submit", "x", "first", "--model", "m", "--session-id", "s")
    run_id = cli("submit", "x", "second", "--model", "m", "--session-id", "s").stdout.strip()
    waited = cli("wait", run_id, "--timeout", "0")
    assert waited.returncode == 1
    assert "is still pending after 0 s (held: session)" in waited.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["submit", "x", "hi", "--queue", "nope"], 2, 'unknown queue "nope". Known queues: default.'),
        (["submit", "x", "hi", "--multitask", "never"], 2, "--multitask='never' is none of enqueue, reject"),
        (["submit", "x", "{not json"], 2, "INPUT begins like JSON but is none"),
        (["submit", "x", "hi", "--metadata", "[1]"], 2, "--metadata must be a JSON object"),
        (["submit", "x", "hi", "--output-schema", "/nowhere.json"], 2, "--output-schema /nowhere.json: No such file"),
        (["show", "not-a-uuid"], 2, "run_id 'not-a-uuid' is not a UUID"),
        (["show", "00000000-0000-0000-0000-000000000000"], 1, "no run 00000000-0000-0000-0000-000000000000 exists"),
        (["cancel", "00000000-0000-0000-0000-000000000000"], 1, "no run 00000000-0000-0000-0000-000000000000 exists"),
        (["wait", "00000000-0000-0000-0000-000000000000"], 1, "no run 00000000-0000-0000-0000-000000000000 exists"),
        (
            ["wait", "00000000-0000-0000-0000-000000000000", "--timeout", "-1"],
            2,
            "timeout=-1.0: seconds to wait, 0 or more",
        ),
        (["ls", "--status", "done"], 2, "--status done: there are pending, running"),
        (["ls", "--schema", "Bad-Name"], 2, "schema 'Bad-Name'"),
        (
            ["ls", "--schema", "elsewhere"],
            1,
            'the schema "elsewhere" has no pgrun tables. Run: pgrun migrate --schema elsewhere',
        ),
        (["worker", "--import", "no.such.module"], 2, "--import no.such.module: No module named 'no'"),
        (["worker", "--queues", ","], 2, "give at least one name"),
        (["worker", "--retention", "soon"], 2, "--retention soon: a duration such as 30m, 12h or 7d"),
        (["worker", "--retention", "30m"], 2, "retention=1800.0: seconds to keep ended runs, from 3600 (an hour)"),
        (["worker", "--retention", "done=7d"], 2, "retention of done: there are completed, error and cancelled"),
        (["worker", "--retention", "error=7d,completed=soon"], 2, "--retention soon: a duration such as"),
        (["retry"], 2, "say which: RUN_ID, or at least one of --queue"),
        (["retry", "x", "--queue", "mail"], 2, "give one or the other"),
        (["retry", "--name", ""], 2, "name='': a text, or None for all"),
        (["retry", "--since", "soon"], 2, "--since soon: a duration such as"),
        (["prune"], 2, "Missing option '--older-than'"),
        (["prune", "--older-than", "-7d"], 2, "--older-than -7d: a duration such as 30m, 12h or 7d"),
        (["prune", "--older-than", "7d", "--status", "running"], 2, "status='running': choose completed, error or"),
        (["prune", "--older-than", "7d", "--queue", ""], 2, "queue='': the name of a queue"),
        (["worker", "--processes", "0"], 2, "Invalid value for '--processes'"),
        (["worker", "--processes", "2", "--log-level", "loud"], 2, "--log-level loud: choose debug"),
        (["worker", "--leash", "99"], 2, "--leash 99: "),
        (["worker", "--log-level", "loud"], 2, "--log-level loud: choose debug, info, warning or error"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_what_cannot_be_says_so(cli: Cli, words: list[str], code: int, says: str) -> None:
    refused = cli(*words)
    assert says in " ".join(refused.stderr.split())
    assert (refused.returncode, refused.stdout) == (code, "")
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("url", "code", "says"),
    [
        ("postgresql://ai:geheim@127.0.0.1:1/ai", 1, "is not available"),
        ("mysql://root:geheim@localhost/x", 2, "the database URL cannot be understood"),
        ("", 2, "no database URL: pass one, or set $PGRUN_DATABASE_URL"),
    ],
)
def test_a_database_that_is_not_there_is_named_without_its_password(
    process: Cli, url: str, code: int, says: str
) -> None:
    refused = process("ls", PGRUN_DATABASE_URL=url, DATABASE_URL="")
    assert says in refused.stderr
    assert "geheim" not in refused.stderr
    assert refused.returncode == code


def test_an_unknown_name_is_kept_with_a_warning(cli: Cli, conn: Conn) -> None:
    submitted = cli("submit", "nobody", "hello")
    assert submitted.returncode == 0
    assert 'no agent and no worker knows the name "nobody" yet' in submitted.stderr
    assert conn.execute("select count(*) as n from pgrun.runs where name = 'nobody'").fetchone() == {"n": 1}


def test_input_comes_from_stdin_too(dsn: str, conn: Conn) -> None:
    subprocess.run(
        [sys.executable, "-m", "pgrun", "submit", "x", "-", "--model", "m"],
        env={**os.environ, "PGRUN_DATABASE_URL": dsn},
        input='{"city": "Rome"}',
        text=True,
        check=True,
        capture_output=True,
    )
    assert conn.execute("select input from pgrun.jobs").fetchone() == {"input": {"city": "Rome"}}


def test_an_output_schema_travels_with_the_run(cli: Cli, conn: Conn, tmp_path: Path) -> None:
    schema = tmp_path / "city.json"
    properties = {"city": {"type": "string"}}
    schema.write_text(json.dumps({"title": "City", "type": "object", "properties": properties, "required": ["city"]}))
    assert cli("submit", "x", "Rome?", "--model", "m", "--output-schema", str(schema)).returncode == 0
    row = conn.execute("select output_schema from pgrun.jobs").fetchone()
    assert row is not None
    assert row["output_schema"]["properties"] == properties


def test_one_bad_id_does_not_keep_the_others_from_being_cancelled(cli: Cli) -> None:
    run_id, missing = cli("submit", "x", "hi", "--model", "m").stdout.strip(), str(uuid4())
    cancelled = cli("cancel", missing, run_id)
    assert cancelled.returncode == 1
    assert f"{run_id} cancelled" in cancelled.stdout
    assert f"no run {missing} exists" in cancelled.stderr


def test_migrate_says_what_it_did(cli: Cli, new_database: Callable[..., str]) -> None:
    empty = new_database()
    first = cli("migrate", PGRUN_DATABASE_URL=empty)
    assert first.stdout.startswith("applied 0001 tables\n")
    assert cli("migrate", PGRUN_DATABASE_URL=empty).stdout == 'schema "pgrun" is up to date\n'
    assert cli("migrate", "--schema", "other", "--json", PGRUN_DATABASE_URL=empty).stdout.startswith('[{"number":1,')


def test_old_runs_are_counted_and_then_deleted(cli: Cli, conn: Conn) -> None:
    conn.execute(
        "insert into pgrun.jobs (name, status, finished_at) select 'noop', s, now() - make_interval(days => d) "
        "from unnest('{completed,error}'::text[]) s, unnest('{0,8,9}'::int[]) d"
    )
    week = ("prune", "--older-than", "7d")
    assert cli(*week, "--dry-run").stdout == "would delete 4 runs\n"
    assert cli(*week, "--dry-run", "--json", "--status", "error").stdout == '{"prunable":2}\n'
    assert cli("prune", "--older-than", "205h", "--status", "error").stdout == "deleted 1 run\n"
    assert cli(*week, "--queue", "mail", "--json").stdout == '{"deleted":0}\n'
    assert cli(*week, "--queue", "default", "--json").stdout == '{"deleted":3}\n'
    assert conn.execute("select count(*) as n from pgrun.runs").fetchone() == {"n": 2}


def test_a_worker_takes_a_retention_or_keeps_runs_for_ever(cli: Cli) -> None:
    for kept in ("forever", "7d", "completed=7d, error=90d"):
        # It is accepted: what is refused is the list of queues, which is looked at later.
        refused = cli("worker", "--retention", kept, "--queues", ",")
        assert "give at least one name" in refused.stderr


def test_limits_and_pauses_of_a_queue_are_set_and_shown(cli: Cli, conn: Conn) -> None:
    set_mail = ("queues", "set", "mail", "--concurrency", "10", "--key-concurrency", "none")
    shown = cli(*set_mail, "--rate", "100", "--per", "1m", "--json")
    limits = ("concurrency", "key_concurrency", "rate", "per", "burst")
    assert [json.loads(shown.stdout)[name] for name in limits] == [10, None, 100, 60, None]
    assert cli("pause", "mail", "--for", "10m").stdout == "mail is paused for 10m\n"
    submitted = cli("submit", "noop", "1", "--queue", "mail", "--concurrency-key", "ada", "--weight", "3")
    assert 'Queue "mail" is paused until' in cli("show", submitted.stdout.strip()).stdout
    assert one(conn, "select concurrency_key || weight from pgrun.jobs") == "ada3"
    assert cli("resume", "mail").returncode == 0
    assert [line.split()[:2] for line in cli("queues").stdout.splitlines()[1:]] == [["default", "0"], ["mail", "1"]]


def test_it_tells_its_version() -> None:
    told = CliRunner().invoke(app, ["--version"])
    assert (told.exit_code, told.stdout) == (0, f"{version('pgrun')}\n")


def test_help_lists_every_command() -> None:
    words = CliRunner().invoke(app, ["--help"]).stdout.split()
    for command in (
        *("demo", "migrate", "worker", "submit", "ls", "show", "wait", "cancel", "retry", "approve", "reject"),
        *("prune", "stats", "queues", "pause", "resume"),
    ):
        assert command in words
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_commands_answer_quickly(process: Cli) -> None:
    """0.4 s on a quiet machine; the best of many runs, and a wide margin, because this one may be busy."""
    best = 9.0
    for _ in range(30):
        if best < 1.0:
            break
        started = time.monotonic()
        assert process("ls").returncode == 0
        best = min(best, time.monotonic() - started)
    assert best < 1.0
