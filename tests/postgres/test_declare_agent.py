"""declare_agent.sql: what SQL knows of an agent, and what becomes of runs that were submitted before."""

from support.database import Conn
from support.hands import hire, submit
from support.rows import row_of
from support.tables import one, perform

from pgrun import PostgresDb

DEFINITION = {"model": {"provider": "openai.responses", "id": "gpt-5-mini"}}
SCHEMA = {"type": "object"}


def declare(conn: Conn, name: str = "Poet", queue: str = "default", definition: str = "{}", attempts: int = 5) -> bool:
    (row,) = perform(
        conn, "declare_agent", name=name, queue=queue, definition=definition, output_schema="", max_attempts=attempts
    )
    return bool(row["changed"])


async def test_the_latest_definition_is_kept_and_its_queue_exists(db: PostgresDb, conn: Conn) -> None:
    verbs = (await db.connected()).verbs
    await verbs.declare_agent("Poet", "verse", None, None, 2)
    await verbs.declare_agent("Poet", "verse", DEFINITION, SCHEMA, 3)
    agent = conn.execute("select name, definition, output_schema, max_attempts from pgrun.agents").fetchall()
    assert agent == [{"name": "Poet", "definition": DEFINITION, "output_schema": SCHEMA, "max_attempts": 3}]
    assert one(conn, "select array_agg(queue order by queue) from pgrun.queues") == ["default", "verse"]


def test_only_a_new_or_changed_definition_counts_as_a_change(conn: Conn) -> None:
    assert declare(conn)
    assert not declare(conn)
    declared_at = one(conn, "select declared_at from pgrun.agents")
    assert not declare(conn, definition=" { } ")
    assert one(conn, "select declared_at from pgrun.agents") == declared_at
    assert declare(conn, definition='{"a": 1}')
    assert declare(conn, definition='{"a": 1}', attempts=2)
    assert declare(conn, definition="", attempts=2)
    assert one(conn, "select definition from pgrun.agents") is None


async def test_pending_runs_without_a_definition_get_it_and_are_due(db: PostgresDb, conn: Conn) -> None:
    waiting = await submit(db, name="Poet", delay=600)
    other = await submit(db, name="Other", delay=600)
    with_its_own = await submit(db, name="Poet", definition={"a": 1}, delay=600)
    before = row_of(conn, other), row_of(conn, with_its_own)
    await (await db.connected()).verbs.declare_agent("Poet", "default", DEFINITION, SCHEMA, 3)
    row = row_of(conn, waiting)
    assert (row["kind"], row["definition"], row["output_schema"]) == ("agent", DEFINITION, SCHEMA)
    assert row["due_at"] < before[0]["due_at"]
    assert (row_of(conn, other), row_of(conn, with_its_own)) == before


async def test_runs_of_an_agent_with_tools_get_no_definition_that_knows_nothing_of_them(
    db: PostgresDb, conn: Conn
) -> None:
    waiting = await submit(db, name="Poet", kind="agent")
    before = row_of(conn, waiting)
    assert declare(conn)
    assert row_of(conn, waiting) == before


async def test_runs_that_nobody_knew_become_runs_of_an_agent_with_tools(db: PostgresDb, conn: Conn) -> None:
    waiting = await submit(db, name="Poet")
    assert declare(conn, definition="")
    row = row_of(conn, waiting)
    assert (row["kind"], row["definition"]) == ("agent", None)


async def test_running_and_ended_runs_keep_what_they_had(db: PostgresDb, conn: Conn) -> None:
    running, ended = await submit(db, name="Poet"), await submit(db, name="Poet")
    hand = await hire(db)
    await hand.claim_one()
    await hand.verbs.cancel(ended)
    before = row_of(conn, running), row_of(conn, ended)
    await hand.verbs.declare_agent("Poet", "default", DEFINITION, None, 3)
    assert (row_of(conn, running), row_of(conn, ended)) == before
