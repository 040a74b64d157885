"""The journal in the database: what it holds, who may write to it, and how long it lasts."""

from typing import Any

import anyio
import pytest
from pydantic import BaseModel
from support.database import Conn
from support.hands import hire, lose
from support.models import ScriptedModel, calling
from support.rows import row_of, steps_of
from support.tables import one
from support.until import until

from pgrun import Agent, ModelUnavailable, PostgresDb, RetryPolicy, RunFailed, Worker
from pgrun.errors import AttemptError
from pgrun.models.base import ModelResponse

ROME = calling(("weather", '{"city": "Rome"}'))
OSLO = calling(("weather", '{"city": "Oslo"}'))
SOON = RetryPolicy(base_delay=0.05, max_attempts=3)

called: list[str] = []


class Count(BaseModel):
    number: int


@pytest.fixture(autouse=True)
def _forget_calls() -> None:
    called.clear()


async def weather(city: str) -> str:
    """Tells the weather."""
    called.append(city)
    return f"{city}: sun"


def agent_with(db: PostgresDb, *answers: str | ModelResponse | AttemptError, **options: Any) -> Agent[Any]:
    return Agent(name="Weather", model=ScriptedModel(*answers), tools=[weather], db=db, retry=SOON, **options)


def asked(agent: Agent[Any]) -> int:
    model = agent.definition.model
    assert isinstance(model, ScriptedModel)
    return len(model.asked)


async def test_steps_are_there_as_soon_as_they_are_done_and_readable_in_sql(db: PostgresDb, conn: Conn) -> None:
    agent = agent_with(db, ROME, "Sun.")
    async with Worker(db):
        run = await agent.arun("Rome?", background=True)
        await run.aresult(timeout=10)
    model, tool = steps_of(conn, run.run_id)
    assert (model["step"], model["kind"], model["name"], model["attempt"]) == (1, "model_call", "scripted", 1)
    assert model["data"]["calls"] == [{"call_id": "call_1", "name": "weather", "arguments": '{"city": "Rome"}'}]
    assert (tool["step"], tool["kind"], tool["name"]) == (2, "tool_call", "weather")
    assert tool["data"]["result"] == "Rome: sun"
    assert tool["finished_at"] >= model["finished_at"]


async def test_a_run_with_one_answer_costs_no_step(db: PostgresDb, conn: Conn) -> None:
    agent = agent_with(db, "Sun.")
    async with Worker(db):
        run = await agent.arun("Rome?", background=True)
        await run.aresult(timeout=10)
    assert steps_of(conn, run.run_id) == []


async def test_the_journal_grows_with_what_is_new_and_not_with_the_conversation(db: PostgresDb, conn: Conn) -> None:
    agent = agent_with(db, *[ROME] * 20, "Sun.")
    async with Worker(db):
        run = await agent.arun("Rome? " + "x" * 10_000, background=True)
        await run.aresult(timeout=10)
    sizes = [len(str(step["data"])) for step in steps_of(conn, run.run_id)]
    assert len(sizes) == 40
    assert max(sizes) < 1000


async def test_a_retried_attempt_goes_on_where_the_last_one_failed(db: PostgresDb, conn: Conn) -> None:
    agent = agent_with(db, ROME, ModelUnavailable("busy"), OSLO, ModelUnavailable("busy"), "Sun.")
    async with Worker(db):
        run = await agent.arun("Rome and Oslo?", background=True)
        assert await run.aresult(timeout=10) == "Sun."
    assert (asked(agent), called) == (5, ["Rome", "Oslo"])
    row = row_of(conn, run.run_id)
    assert row["attempt"] == 3
    assert row["metrics"]["total_tokens"] == 3 * 13
    assert [step["attempt"] for step in steps_of(conn, run.run_id)] == [1, 1, 2, 2]
    assert [each["arguments"]["city"] for each in row["tools"]] == ["Rome", "Oslo"]


async def test_a_repair_turn_that_failed_is_not_begun_anew(db: PostgresDb) -> None:
    agent = agent_with(db, "not a number", ModelUnavailable("busy"), '{"number": 7}', output_schema=Count)
    async with Worker(db):
        run = await agent.arun("How many?", background=True)
        assert await run.aresult(timeout=10) == Count(number=7)
    assert asked(agent) == 3


async def test_a_run_that_was_given_back_goes_on_with_the_next_worker(db: PostgresDb, conn: Conn) -> None:
    class Sleeps(ScriptedModel):
        async def call(self, request: Any) -> ModelResponse:
            if len(self.asked) == 1:
                self.asked.append(request)
                await anyio.sleep_forever()
            return await super().call(request)

    agent = Agent(name="Weather", model=Sleeps(ROME, "Sun."), tools=[weather], db=db)
    async with Worker(db, grace=0):
        run = await agent.arun("Rome?", background=True)
        await until(lambda: asked(agent) == 2)
    assert row_of(conn, run.run_id)["metrics"]["total_tokens"] == 13
    async with Worker(db):
        assert await run.aresult(timeout=10) == "Sun."
    assert (asked(agent), called) == (3, ["Rome"])
    assert row_of(conn, run.run_id)["metrics"]["total_tokens"] == 26


async def test_a_stale_worker_cannot_write_to_the_journal(db: PostgresDb, conn: Conn) -> None:
    run = await agent_with(db, "Sun.").arun("Rome?", background=True)
    first, second = await hire(db, names=["Weather"]), await hire(db, names=["Weather"])
    stale = await first.claim_one()
    lose(conn, first)
    await second.verbs.rescue(second.worker_id)
    held = await second.claim_one()
    step: dict[str, Any] = {"number": 1, "kind": "model_call", "name": "m", "duration": 0.5}
    assert await first.verbs.record_step(stale, **step, data="old", metrics={"total_tokens": 99}) is None
    assert steps_of(conn, run.run_id) == []
    assert row_of(conn, run.run_id)["metrics"] == {}
    assert await second.verbs.record_step(held, **step, data="new", metrics={"total_tokens": 1})
    assert await second.verbs.record_step(held, **step, data="again", metrics={"total_tokens": 1})
    assert [row["data"] for row in steps_of(conn, run.run_id)] == ["new"]


async def test_a_person_who_retries_an_ended_run_lets_it_begin_anew(db: PostgresDb, conn: Conn) -> None:
    agent = agent_with(db, ROME, *["no number"] * 3, ROME, '{"number": 7}', output_schema=Count)
    async with Worker(db):
        run = await agent.arun("How many?", background=True)
        with pytest.raises(RunFailed):
            await run.aresult(timeout=10)
        assert len(steps_of(conn, run.run_id)) == 4
        one(conn, "select pgrun.retry(%s)", run.run_id)
        await until(lambda: row_of(conn, run.run_id)["status"] == "completed")
    assert (asked(agent), called) == (6, ["Rome", "Rome"])
    assert len(steps_of(conn, run.run_id)) == 2


async def test_steps_go_with_their_run(db: PostgresDb, conn: Conn) -> None:
    agent = agent_with(db, ROME, "Sun.")
    async with Worker(db):
        run = await agent.arun("Rome?", background=True)
        await run.aresult(timeout=10)
    assert await db.aprune(0) == 1
    assert one(conn, "select count(*) from pgrun.steps") == 0
