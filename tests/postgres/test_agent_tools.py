"""Runs of agents with tools: who may execute them, what their tools know, and what stays in the row."""

from typing import Any

import anyio
import pytest
from support.database import Conn
from support.hands import hire
from support.models import ScriptedModel, calling
from support.rows import row_of, until_all
from support.until import until

from pgrun import Agent, PostgresDb, RunCancelled, RunContext, RunFailed, ToolExecution, ToolFailed, UsageError, Worker
from pgrun._agents_here import _registry
from pgrun.models.base import ModelResponse

ROME = calling(("weather", '{"city": "Rome"}'))


def weather(city: str) -> str:
    """Tells the weather."""
    return f"{city}: sun"


def with_tools(
    db: PostgresDb, *answers: str | ModelResponse, tools: Any = (weather,), name: str = "Weather"
) -> Agent[str]:
    return Agent(name=name, model=ScriptedModel(*(answers or (ROME, "Sun."))), tools=tools, db=db)


async def until_put_off(conn: Conn, run_id: str) -> dict[str, Any]:
    """The row of a run as soon as a worker has given it back."""
    return await until(lambda: row if (row := row_of(conn, run_id))["error"] else {}, shown="put off")


async def test_a_run_with_tools_is_executed_where_the_agent_was_imported(db: PostgresDb, conn: Conn) -> None:
    agent = with_tools(db)
    async with Worker(db):
        run = await agent.arun("Rome?", background=True)
        assert await run.aresult(timeout=10) == "Sun."
    read = await agent.aget_run_output(run.run_id)
    assert read is not None
    (made,) = read.tools
    assert made == ToolExecution(
        call_id="call_1", name="weather", arguments={"city": "Rome"}, result="Rome: sun", duration=made.duration
    )
    row = row_of(conn, run.run_id)
    assert (row["kind"], row["definition"]) == ("agent", None)
    assert [each["arguments"]["city"] for each in row["tools"]] == ["Rome"]
    assert row["metrics"]["total_tokens"] == 26


async def test_a_run_that_called_nothing_has_null_for_its_tools(db: PostgresDb, conn: Conn) -> None:
    agent = with_tools(db, "Sun.")
    async with Worker(db):
        run = await agent.arun("Rome?", background=True)
        await run.aresult(timeout=10)
    assert row_of(conn, run.run_id)["tools"] is None
    read = await agent.aget_run_output(run.run_id)
    assert read is not None
    assert read.tools == []


async def test_a_tool_knows_the_run_that_calls_it(db: PostgresDb) -> None:
    contexts: list[RunContext] = []

    def order(run: RunContext) -> None:
        contexts.append(run)

    agent = with_tools(db, calling(("order", "{}")), "Done.", tools=[order])
    async with Worker(db):
        run = await agent.arun("Order!", background=True, session_id="s-1", metadata={"customer": 7})
        await run.aresult(timeout=10)
    assert contexts == [
        RunContext(
            run_id=run.run_id,
            session_id="s-1",
            agent_name="Weather",
            attempt=1,
            metadata={"customer": 7},
            idempotency_key=contexts[0].idempotency_key,
        )
    ]


async def test_a_worker_that_does_not_know_the_agent_gives_its_run_back_with_a_warning(
    db: PostgresDb, conn: Conn, caplog: pytest.LogCaptureFixture
) -> None:
    agent = with_tools(db)
    run = await agent.arun("Rome?", background=True)
    _registry.clear()
    async with Worker(db):
        row = await until_put_off(conn, run.run_id)
    assert (row["status"], row["attempt"], row["error"]["type"]) == ("pending", 0, "UnknownName")
    assert 'no worker here knows the agent "Weather" with its tools' in caplog.text


async def test_an_agent_of_the_name_without_tools_never_executes_the_run(db: PostgresDb, conn: Conn) -> None:
    """Neither from its own memory nor by giving the waiting run its definition."""
    agent = with_tools(db)
    run = await agent.arun("Rome?", background=True)
    model = ScriptedModel("No idea.")
    Agent(name="Weather", model=model, db=db)
    async with Worker(db):
        row = await until_put_off(conn, run.run_id)
    assert (row["status"], row["definition"]) == ("pending", None)
    assert model.asked == []


async def test_a_run_that_was_submitted_before_anyone_knew_the_agent_becomes_one_of_its_runs(
    db: PostgresDb, conn: Conn
) -> None:
    row = conn.execute("select pgrun.submit('Weather', '\"Rome?\"')::text as run_id").fetchone()
    assert row is not None
    assert row_of(conn, row["run_id"])["kind"] == "task"
    agent = with_tools(db)
    async with Worker(db):
        (ended,) = await until_all(conn, "completed", [row["run_id"]])
    assert (ended["kind"], ended["output"]) == ("agent", "Sun.")
    assert agent.stored_definition is None


async def test_a_tool_can_end_the_run(db: PostgresDb, conn: Conn) -> None:
    def pay() -> None:
        raise ToolFailed("the card is blocked", card="1234")

    agent = with_tools(db, calling(("pay", "{}")), "Paid.", tools=[pay])
    async with Worker(db):
        run = await agent.arun("Pay!", background=True)
        with pytest.raises(RunFailed, match="ToolFailed: the card is blocked") as caught:
            await run.aresult(timeout=10)
    assert isinstance(caught.value.__cause__, ToolFailed)
    assert caught.value.details["card"] == "1234"
    row = row_of(conn, run.run_id)
    assert (row["attempt"], row["tools"][0]["error"]) == (1, "ToolFailed: the card is blocked")


async def test_cancelling_the_run_cancels_its_tool_and_keeps_what_was_under_way(db: PostgresDb, conn: Conn) -> None:
    said: list[str] = []

    async def wait() -> None:
        said.append("waits")
        try:
            await anyio.sleep(60)
        except anyio.get_cancelled_exc_class():
            said.append("cancelled")
            raise

    agent = with_tools(db, calling(("wait", "{}")), tools=[wait])
    async with Worker(db):
        run = await agent.arun("Wait!", background=True)
        await until(lambda: said)
        assert await agent.acancel_run(run.run_id)
        with pytest.raises(RunCancelled):
            await run.aresult(timeout=10)
    assert said == ["waits", "cancelled"]
    (made,) = row_of(conn, run.run_id)["tools"]
    assert made.keys() == {"call_id", "name", "arguments", "duration"}


async def test_two_agents_that_workers_could_not_tell_apart_are_told_to_the_first(db: PostgresDb, conn: Conn) -> None:
    def forecast() -> None: ...

    first = with_tools(db)
    again = with_tools(db)
    await first.arun("Rome?", background=True)
    with_tools(db, tools=[forecast])
    for agent in (first, again):
        with pytest.raises(UsageError, match=r'another agent with the name "Weather" was declared after this one'):
            await agent.arun("Rome?", background=True)
    assert conn.execute("select count(*) as n from pgrun.jobs").fetchone() == {"n": 1}


async def test_a_foreground_run_with_a_database_shows_its_calls(dsn: str) -> None:
    async with PostgresDb(dsn, worker="embedded") as db:
        run = await with_tools(db).arun("Rome?")
    assert (run.content, [each.result for each in run.tools]) == ("Sun.", ["Rome: sun"])


async def test_a_process_executes_its_runs_with_tools_itself_while_the_daemon_does_not_know_them(
    db: PostgresDb, dsn: str
) -> None:
    await hire(db)
    async with PostgresDb(dsn, worker="auto") as auto:
        assert (await with_tools(auto).arun("Rome?")).content == "Sun."
