"""The functions for people in psql: submit, cancel, retry, pause_queue and resume_queue."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb
from support.database import Conn
from support.ear import Ear
from support.hands import completed, failed, hire, lose, submit
from support.rows import Row, row_of
from support.tables import one, status

from pgrun import PostgresDb, RunNotFound, UsageError
from pgrun._ids import new_run_id


@pytest.fixture
def notices(conn: Conn) -> list[str]:
    """Warnings and hints, as psql would print them."""
    heard: list[str] = []
    conn.add_notice_handler(
        lambda notice: heard.append(f"{notice.severity}: {notice.message_primary} {notice.message_hint}")
    )
    return heard


def submit_by(conn: Conn, arguments: str, *params: Any) -> Row:
    return row_of(conn, one(conn, f"select pgrun.submit({arguments})", *params))


def declare(conn: Conn, name: str = "Poet", *, definition: str | None = '{"model": {}}', attempts: int = 3) -> None:
    conn.execute(
        'insert into pgrun.agents (name, definition, output_schema, max_attempts) values (%s, %s, \'{"type": "object"}\', %s)',
        [name, definition, attempts],
    )


def test_name_and_input_are_enough(conn: Conn) -> None:
    row = submit_by(conn, """'noop', '{"a": 1}'""")
    assert (row["kind"], row["name"], row["input"], row["queue"]) == ("task", "noop", {"a": 1}, "default")
    assert (row["status"], row["priority"], row["max_attempts"], row["metadata"]) == ("pending", 0, 5, {})
    assert (row["session_id"], row["definition"], row["output_schema"]) == (None, None, None)
    assert row["due_at"] == row["created_at"]


def test_every_parameter_can_be_given_by_name(conn: Conn) -> None:
    run_id = new_run_id()
    conn.execute("insert into pgrun.queues (queue) values ('mail')")
    row = submit_by(
        conn,
        "name => 'Poet', input => '\"x\"', queue => 'mail', session_id => 's', priority => -2, delay => '90 s', "
        "max_attempts => 7, metadata => '{\"a\": 1}', definition => '{\"model\": {}}', "
        'output_schema => \'{"type": "string"}\', run_id => %s',
        run_id,
    )
    assert (str(row["run_id"]), row["kind"], row["input"], row["queue"]) == (run_id, "agent", "x", "mail")
    assert (row["session_id"], row["session_seq"], row["priority"], row["max_attempts"]) == ("s", 1, -2, 7)
    assert (row["metadata"], row["definition"], row["output_schema"]) == ({"a": 1}, {"model": {}}, {"type": "string"})
    assert row["due_at"] - row["created_at"] == timedelta(seconds=90)


def test_a_declared_agent_gives_definition_schema_attempts_and_a_session(conn: Conn) -> None:
    declare(conn)
    row = submit_by(conn, "'Poet', '\"x\"'")
    assert (row["kind"], row["definition"], row["output_schema"]) == ("agent", {"model": {}}, {"type": "object"})
    assert (row["max_attempts"], row["session_id"], row["session_seq"]) == (3, str(row["run_id"]), 1)


def test_what_is_given_goes_before_what_was_declared(conn: Conn) -> None:
    declare(conn)
    row = submit_by(
        conn, "'Poet', '1', max_attempts => 9, definition => '{\"a\": 1}', output_schema => '{}', session_id => 's'"
    )
    assert (row["max_attempts"], row["definition"], row["output_schema"]) == (9, {"a": 1}, {})
    assert (row["session_id"], row["kind"]) == ("s", "agent")


def test_an_unknown_queue_is_refused_with_a_hint_that_helps(conn: Conn) -> None:
    with pytest.raises(psycopg.Error, match='unknown queue "mail"') as caught:
        conn.execute("select pgrun.submit('noop', '1', queue => 'mail')")
    assert caught.value.sqlstate == "PGR02"
    hint = caught.value.diag.message_hint
    assert hint is not None
    assert "Known queues: default." in hint
    conn.execute(hint[hint.index("insert into") :].encode())  # as it stands
    conn.execute("select pgrun.submit('noop', '1', queue => 'mail')")


async def test_the_library_says_the_same_in_its_words(db: PostgresDb) -> None:
    verbs = (await db.connected()).verbs
    values = {"name": "noop", "input": 1, "queue": "mail", "session_id": "", "priority": 0, "delay": 0, "metadata": {}}
    with pytest.raises(UsageError, match=r'unknown queue "mail"\. Known queues: default\.'):
        await verbs.submit_by_name({**values, "max_attempts": "", "definition": None, "output_schema": None})


def test_a_name_that_nobody_knows_is_accepted_with_a_warning(conn: Conn, notices: list[str]) -> None:
    assert submit_by(conn, "'nobody', '1'")["status"] == "pending"
    (notice,) = notices
    assert notice.startswith('WARNING: no agent and no worker knows the name "nobody" yet')
    assert "The run is kept" in notice


async def test_there_is_no_warning_where_an_agent_or_a_worker_knows_the_name(
    db: PostgresDb, conn: Conn, notices: list[str]
) -> None:
    declare(conn)
    conn.execute("select pgrun.submit('Poet', '1')")
    await hire(db, names=["mail"])
    conn.execute("select pgrun.submit('mail', '1')")
    conn.execute("select pgrun.submit('nobody', '1', definition => '{}')")
    assert notices == []


async def test_a_worker_that_has_stopped_knows_nothing(db: PostgresDb, conn: Conn, notices: list[str]) -> None:
    hand = await hire(db, names=["mail"])
    await hand.verbs.stop_worker(hand.worker_id)
    conn.execute("select pgrun.submit('mail', '1')")
    assert len(notices) == 1


def test_a_repeated_submission_changes_nothing(conn: Conn, ear: Ear) -> None:
    run_id = new_run_id()
    row = submit_by(conn, "'noop', '1', session_id => 's', run_id => %s", run_id)
    ear.heard()
    assert submit_by(conn, "'noop', '2', session_id => 's', run_id => %s", run_id) == row
    assert one(conn, "select last_seq from pgrun.sessions") == 1
    assert ear.heard() == []


async def test_the_library_repeats_a_submission_by_name_under_the_same_run_id(db: PostgresDb, conn: Conn) -> None:
    """The one made for it, if none was given: or a repeat after a lost connection would submit twice."""
    connected = await db.connected()
    asked: list[str] = []
    fetch = connected.runtime.fetch

    async def fetch_twice(name: str, params: Any = None) -> Any:
        asked.append(params["run_id"])
        await fetch(name, params)
        return await fetch(name, params)

    connected.runtime.fetch = fetch_twice  # type: ignore[method-assign]
    values = {
        "name": "noop",
        "input": 1,
        "queue": "default",
        "session_id": "",
        "priority": 0,
        "delay": 0,
        "metadata": {},
    }
    values |= {"max_attempts": "", "definition": None, "output_schema": None, "run_id": None}
    assert [await connected.verbs.submit_by_name(values)] == asked
    assert one(conn, "select count(*) from pgrun.jobs") == 1


def test_a_plain_insert_becomes_a_run_of_the_declared_agent(conn: Conn) -> None:
    declare(conn)
    conn.execute("insert into pgrun.jobs (name, input) values ('Poet', '\"x\"'), ('noop', '1')")
    agent, task = conn.execute("select * from pgrun.jobs order by name").fetchall()
    assert (agent["kind"], agent["definition"], agent["output_schema"]) == ("agent", {"model": {}}, {"type": "object"})
    assert agent["session_id"] == str(agent["run_id"])
    assert (task["kind"], task["definition"], task["session_id"]) == ("task", None, None)


def test_a_plain_insert_with_a_definition_is_an_agent(conn: Conn) -> None:
    conn.execute("insert into pgrun.jobs (name, input, definition) values ('Anyone', '1', '{}')")
    assert one(conn, "select kind || ' ' || (session_id = run_id::text) from pgrun.jobs") == "agent true"


async def test_cancel_answers_in_words(db: PostgresDb, conn: Conn) -> None:
    pending, running, done = [await submit(db, priority=n) for n in (3, 2, 1)]
    hand = await hire(db)
    await hand.complete(await hand.claim_one())
    await hand.claim_one()
    answers = [one(conn, "select pgrun.cancel(%s)", run_id) for run_id in (pending, running, done)]
    assert answers == ["cancelled", "cancelling", "completed"]


@pytest.mark.parametrize("function", ["cancel", "retry"])
def test_an_unknown_run_is_an_error_of_its_own(conn: Conn, function: str) -> None:
    run_id = uuid4()
    with pytest.raises(psycopg.Error, match=f"no run {run_id} exists") as caught:
        conn.execute(f"select pgrun.{function}(%s)".encode(), [run_id])
    assert caught.value.sqlstate == "PGR01"


@pytest.mark.parametrize("ended", ["error", "cancelled"])
async def test_an_ended_run_is_retried_with_all_its_attempts(db: PostgresDb, conn: Conn, ended: str) -> None:
    run_id = await submit(db, max_attempts=2)
    hand = await hire(db)
    claimed = await hand.claim_one()
    await hand.verbs.retry(claimed, delay=0, error={"message": "broke"}, metrics={"total_tokens": 3})
    claimed = await hand.claim_one()
    await (hand.verbs.finish([failed(claimed)]) if ended == "error" else hand.verbs.cancel(run_id))
    if ended == "cancelled":
        await hand.verbs.release([(run_id, claimed.fence)])
    assert status(conn, run_id) == ended

    assert one(conn, "select pgrun.retry(%s)", run_id) == "pending"
    row = row_of(conn, run_id)
    assert (row["status"], row["attempt"], row["finished_at"], row["cancel_requested_at"]) == ("pending", 0, None, None)
    assert row["error"]["message"] == "broke"  # until the next attempt says something else
    assert (await hand.claim_one()).fence == 3
    assert await hand.verbs.finish([completed(claimed)]) == set()


async def test_a_pending_run_is_due_at_once_and_keeps_the_attempts_it_has_used(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    await hand.verbs.retry(await hand.claim_one(), delay=600, error={"message": "broke"}, metrics={})
    assert await hand.claim() == []
    assert one(conn, "select pgrun.retry(%s)", run_id) == "pending"
    assert (await hand.claim_one()).attempt == 2


@pytest.mark.parametrize("state", ["running", "paused", "completed"])
async def test_neither_running_nor_completed_runs_can_be_retried(db: PostgresDb, conn: Conn, state: str) -> None:
    run_id = await submit(db)
    conn.execute(
        "update pgrun.jobs set status = %s, finished_at = case when %s then now() end", [state, state == "completed"]
    )
    before = row_of(conn, run_id)
    with pytest.raises(
        psycopg.Error, match=f"run {run_id} is {state}: only pending, error and cancelled runs"
    ) as caught:
        conn.execute("select pgrun.retry(%s)", [run_id])
    assert caught.value.sqlstate == "PGR02"
    assert row_of(conn, run_id) == before


async def test_the_library_raises_what_the_functions_do(db: PostgresDb, conn: Conn) -> None:
    verbs = (await db.connected()).verbs
    missing = str(UUID(int=7))
    with pytest.raises(RunNotFound, match="no run 00000000-0000-0000-0000-000000000007 exists") as caught:
        await verbs.retry_ended(missing)
    assert caught.value.run_id == missing
    run_id = await submit(db)
    hand = await hire(db)
    await hand.complete(await hand.claim_one())
    with pytest.raises(UsageError, match="is completed: only pending"):
        await verbs.retry_ended(run_id)


async def test_a_retry_after_the_worker_died_cannot_be_overwritten_by_it(db: PostgresDb, conn: Conn) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    stale = await hand.claim_one()
    lose(conn, hand)
    assert one(conn, "select pgrun.cancel(%s)", run_id) == "cancelled"
    assert one(conn, "select pgrun.retry(%s)", run_id) == "pending"
    assert await hand.complete(stale) == set()
    assert status(conn, run_id) == "pending"


def queue(conn: Conn, name: str = "default") -> Row:
    row = conn.execute("select * from pgrun.queues where queue = %s", [name]).fetchone()
    assert row is not None
    return row


def test_a_pause_lasts_until_it_is_ended_or_its_moment_has_come(conn: Conn) -> None:
    conn.execute("select pgrun.pause_queue('default', now() + interval '1 h')")
    paused = queue(conn)
    assert paused["resume_at"] - paused["paused_at"] == timedelta(hours=1)
    conn.execute("select pgrun.pause_queue('default')")  # now for as long as it takes, but since when it began
    assert queue(conn) == paused | {"resume_at": None}
    conn.execute("select pgrun.resume_queue('default')")
    assert queue(conn) == paused | {"resume_at": None, "paused_at": None}


def test_a_queue_can_be_paused_before_anyone_has_declared_it(conn: Conn) -> None:
    conn.execute("select pgrun.pause_queue('mail')")
    assert queue(conn, "mail")["paused_at"] is not None
    conn.execute("select pgrun.submit('noop', '1', queue => 'mail')")


def test_resuming_an_unknown_queue_makes_none(conn: Conn) -> None:
    conn.execute("select pgrun.resume_queue('mail')")
    assert one(conn, "select count(*) from pgrun.queues") == 1


def test_json_of_any_kind_is_an_input(conn: Conn) -> None:
    for value in ("text", 1.5, None, [1, {"a": []}], {"deep": {"er": "ü"}}):
        run_id = one(conn, "select pgrun.submit('noop', %s)", Jsonb(value))
        assert row_of(conn, run_id)["input"] == value
