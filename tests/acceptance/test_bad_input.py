"""Bad input of every kind: a `PgrunError` that says what to do, and nothing lost."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pydantic import BaseModel
from support.database import Conn

from pgrun import (
    Agent,
    DatabaseError,
    DatabaseUnavailable,
    OpenAIResponses,
    PgrunError,
    PostgresDb,
    RunNotFound,
    RunStatus,
    SchemaMismatch,
    UsageError,
    WaitTimeout,
    Worker,
)
from pgrun.testing import ModelServer, reply


class Answer(BaseModel):
    text: str


@pytest.fixture
def agent(db: PostgresDb, models: ModelServer) -> Agent[Answer]:
    model = OpenAIResponses(id="gpt-5-mini", base_url=models.base_url, api_key="test")
    return Agent(name="Careful", model=model, output_schema=Answer, db=db)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("a\x00b", r"input: contains NUL"),
        ({"customer": {"name": "x\x00"}}, r"input.customer.name: contains NUL"),
        ("broken \ud800", r"input: contains .*surrogate"),
        ([1, {"deep": object()}], r"input\[1\].deep: is of type object, which has no JSON form"),
        ({"x": float("nan")}, r"input.x: .*nan"),
    ],
)
async def test_input_that_cannot_be_stored_is_refused_with_its_path(
    agent: Agent[Answer], conn: Conn, value: Any, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        await agent.arun(value, background=True)
    assert conn.execute("select count(*) as n from pgrun.jobs").fetchone() == {"n": 0}


async def test_output_with_nul_and_lone_surrogates_is_kept_readable(agent: Agent[Answer], models: ModelServer) -> None:
    assert agent.db is not None
    models.script(reply('{"text": "one\\u0000two \\ud800 three"}'), reply('{"text": "fine \\ud83d\\ude00"}'))
    async with Worker(agent.db):
        first = await (await agent.arun("?", background=True)).aresult(timeout=10)
        second = await (await agent.arun("?", background=True)).aresult(timeout=10)
    assert first.text == "one\ufffdtwo \ufffd three"
    assert second.text == "fine 😀"


async def test_plain_text_with_nul_is_kept_readable(db: PostgresDb, models: ModelServer) -> None:
    model = OpenAIResponses(id="gpt-5-mini", base_url=models.base_url, api_key="test")
    agent = Agent(name="Plain", model=model, db=db)
    models.script("one\x00two")
    async with Worker(db):
        run = await agent.arun("?")
    assert run.content == "one\ufffdtwo"


async def test_an_agent_that_nobody_knows_waits_and_says_so(db: PostgresDb, conn: Conn) -> None:
    conn.execute("insert into pgrun.jobs (name, input) values ('Nobody', '{}')")
    row = conn.execute("select run_id from pgrun.runs").fetchone()
    assert row is not None
    async with Worker(db):
        with pytest.raises(
            WaitTimeout, match=r'no worker here knows the agent or task "Nobody": start one that imports it'
        ):
            await db.await_runs([str(row["run_id"])], timeout=1)
    state = conn.execute("select status, attempt, error ->> 'type' as type from pgrun.jobs").fetchone()
    assert state == {"status": "pending", "attempt": 0, "type": "UnknownName"}


async def test_a_run_that_came_before_its_agent_was_declared_is_executed_then(
    db: PostgresDb, agent: Agent[Answer], conn: Conn
) -> None:
    conn.execute("insert into pgrun.jobs (name, input) values ('Careful', '\"hello\"')")
    row = conn.execute("select run_id from pgrun.runs").fetchone()
    assert row is not None
    await agent.adeclare()
    async with Worker(db):
        (run,) = await db.await_runs([str(row["run_id"])], timeout=10)
    assert run.status == RunStatus.completed
    assert run.content_type == "Answer"


async def test_an_unknown_queue_names_the_ways_out(agent: Agent[Answer], conn: Conn) -> None:
    with pytest.raises(UsageError, match=r'unknown queue "mail": start a worker that serves it .* or declare it'):
        await agent.arun("?", background=True, queue="mail")
    assert conn.execute("select count(*) as n from pgrun.jobs").fetchone() == {"n": 0}


async def test_a_queue_that_code_declares_exists(db: PostgresDb) -> None:
    agent = Agent(name="Mailer", model="gpt-5-mini", queue="mail", db=db)
    assert (await agent.arun("?", background=True)).status == RunStatus.pending


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan")])
async def test_a_negative_timeout_is_refused(agent: Agent[Answer], timeout: float) -> None:
    run = await agent.arun("?", background=True)
    with pytest.raises(UsageError, match=r"timeout=.*: seconds to wait, 0 or more"):
        await run.aresult(timeout=timeout)


async def test_a_run_that_does_not_exist(agent: Agent[Answer], db: PostgresDb) -> None:
    missing = "01900000-0000-7000-8000-000000000000"
    assert await agent.aget_run_output(missing) is None
    with pytest.raises(RunNotFound, match=missing):
        await agent.acancel_run(missing)
    with pytest.raises(RunNotFound, match=missing):
        await db.await_runs([missing])
    with pytest.raises(UsageError, match="run_id 'rome' is not a UUID"):
        await agent.aget_run_output("rome")


async def test_a_database_that_is_down() -> None:
    db = PostgresDb("postgresql://ai:geheim@127.0.0.1:1/ai", worker="external")
    with pytest.raises(
        DatabaseUnavailable, match=r'database "ai" at 127.0.0.1 port 1 as ai is not available'
    ) as caught:
        await Agent(model="gpt-5-mini", db=db).arun("?", background=True)
    assert "geheim" not in str(caught.value)


async def test_a_database_that_does_not_exist(server: str) -> None:
    db = PostgresDb(make_conninfo(server, dbname="no_such_database"), worker="external")
    with pytest.raises(DatabaseError, match=r'does not let us in.*database "no_such_database" does not exist'):
        await Agent(model="gpt-5-mini", db=db).arun("?", background=True)


async def test_a_schema_that_is_missing(new_database: Callable[..., str]) -> None:
    db = PostgresDb(new_database(), create_schema=False, worker="external")
    with pytest.raises(SchemaMismatch, match=r'the schema "pgrun" has no pgrun tables. Run: pgrun migrate'):
        await Agent(model="gpt-5-mini", db=db).arun("?", background=True)


async def test_a_schema_that_is_newer(dsn: str, conn: Conn) -> None:
    conn.execute("insert into pgrun.migrations (number, name) values (9999, 'future')")
    db = PostgresDb(dsn, worker="external")
    with pytest.raises(SchemaMismatch, match=r"at version 9999, newer than this pgrun.*Upgrade pgrun here"):
        await Agent(model="gpt-5-mini", db=db).arun("?", background=True)


async def test_a_schema_that_is_older(dsn: str, conn: Conn) -> None:
    conn.execute("delete from pgrun.migrations where number = (select max(number) from pgrun.migrations)")
    db = PostgresDb(dsn, worker="external")
    with pytest.raises(SchemaMismatch, match=r"Run: pgrun migrate"):
        await Agent(model="gpt-5-mini", db=db).arun("?", background=True)


async def test_a_role_that_may_not_create_the_schema(new_database: Callable[..., str], server: str) -> None:
    dsn = new_database()
    with psycopg.connect(dsn, autocommit=True) as owner:
        dbname = owner.info.dbname
        owner.execute(f"create role {dbname}_guest login")
    try:
        db = PostgresDb(make_conninfo(dsn, user=f"{dbname}_guest"), worker="external")
        with pytest.raises(DatabaseError, match=r"may not create the schema .*pgrun migrate"):
            await Agent(model="gpt-5-mini", db=db).arun("?", background=True)
    finally:
        with psycopg.connect(server, autocommit=True) as owner:
            owner.execute(f"drop role {dbname}_guest")


async def test_a_definition_written_by_hand_with_a_mistake_is_not_lost(db: PostgresDb, conn: Conn) -> None:
    conn.execute(
        """select pgrun.submit('Poet', '"a haiku"', definition => '{"model": {"provider": "acme", "id": "x"}}')"""
    )
    row = conn.execute("select run_id from pgrun.runs").fetchone()
    assert row is not None
    async with Worker(db):
        with pytest.raises(WaitTimeout, match="unknown model provider 'acme'"):
            await db.await_runs([str(row["run_id"])], timeout=1)
    assert conn.execute("select status, attempt from pgrun.jobs").fetchone() == {"status": "pending", "attempt": 0}


async def test_an_output_schema_written_by_hand_that_no_provider_takes_fails_with_the_field(
    db: PostgresDb, conn: Conn
) -> None:
    conn.execute(
        """select pgrun.submit('Poet', '"a haiku"',
                  definition => '{"model": {"provider": "openai.responses", "id": "gpt-5-mini"}}',
                  output_schema => '{"type": "object", "properties": {"extra": {"type": "object",
                                     "additionalProperties": {"type": "string"}}}}')"""
    )
    row = conn.execute("select run_id from pgrun.runs").fetchone()
    assert row is not None
    async with Worker(db):
        (run,) = await db.await_runs([str(row["run_id"])], timeout=10)
    assert run.status == RunStatus.error
    assert "extra" in str(run.error)


def test_every_mistake_is_a_pgrun_error() -> None:
    for url in ("mysql://x", "", "nonsense"):
        with pytest.raises(PgrunError):
            PostgresDb(url)
    with pytest.raises(UsageError, match="worker='sometimes'"):
        PostgresDb("embedded:", worker="sometimes")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="session_table"):
        PostgresDb("embedded:", session_table='a"; drop table jobs; --')
    wrong: dict[str, Any]
    for wrong in ({"queues": []}, {"queues": "default"}, {"concurrency": 0}, {"grace": -1.0}):
        with pytest.raises(UsageError):
            Worker(PostgresDb("host=nowhere"), **wrong)
