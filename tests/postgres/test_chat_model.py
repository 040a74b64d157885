"""Runs of agents whose model is behind the Chat Completions API: what travels with them is enough for any worker."""

import pytest
from pydantic import BaseModel
from support.database import Conn
from support.rows import row_of

from pgrun import Agent, OpenAIChat, PostgresDb, RunFailed, ToolExecution, Worker
from pgrun._agents_here import _registry
from pgrun.testing import ModelServer, Usage, refusal, reply, tool_call, wrong_shape


class City(BaseModel):
    name: str
    people: int


@pytest.mark.parametrize("form", ["json_schema", "json_object", "prompt"])
async def test_a_worker_that_knows_only_the_row_stores_a_typed_answer(
    db: PostgresDb, conn: Conn, models: ModelServer, form: str
) -> None:
    models.script(wrong_shape(), reply({"name": "Rome", "people": 3}, usage=Usage(10, 5)))
    model = OpenAIChat("llama", base_url=models.base_url, api_key="own-key", structured_output=form)  # type: ignore[arg-type]
    agent = Agent(name="Cities", model=model, output_schema=City, db=db)
    run = await agent.arun("Rome?", background=True)
    _registry.clear()
    async with Worker(db):
        assert await run.aresult(timeout=10) == City(name="Rome", people=3)
    row = row_of(conn, run.run_id)
    assert row["definition"]["model"]["provider"] == "openai.chat"
    assert (row["output"], row["content_type"]) == ({"name": "Rome", "people": 3}, "City")
    assert row["metrics"]["total_tokens"] > 15, "both answers are counted"
    assert "own-key" not in str(row)
    assert [call.headers["authorization"] for call in models.calls] == ["Bearer none"] * 2


async def test_an_agent_with_tools_keeps_what_it_called(db: PostgresDb, models: ModelServer) -> None:
    def weather(city: str) -> str:
        return f"{city}: sun"

    models.script(reply(calls=[tool_call("weather", {"city": "Rome"}, call_id="call_1")]), "Sun.")
    model = OpenAIChat("llama", base_url=models.base_url, api_key="own-key")
    agent = Agent(name="Weather", model=model, tools=[weather], db=db)
    async with Worker(db):
        run = await agent.arun("Rome?", background=True)
        assert await run.aresult(timeout=10) == "Sun."
    read = await agent.aget_run_output(run.run_id)
    assert read is not None
    (made,) = read.tools
    assert made == ToolExecution(
        call_id="call_1", name="weather", arguments={"city": "Rome"}, result="Rome: sun", duration=made.duration
    )


async def test_a_refusal_is_the_end_of_a_run(db: PostgresDb, conn: Conn, models: ModelServer) -> None:
    models.script(refusal("I would rather not."))
    model = OpenAIChat("llama", base_url=models.base_url, api_key="own-key")
    async with Worker(db):
        run = await Agent(name="Cities", model=model, output_schema=City, db=db).arun("Rome?", background=True)
        with pytest.raises(RunFailed, match="I would rather not"):
            await run.aresult(timeout=10)
    row = row_of(conn, run.run_id)
    assert (row["attempt"], row["error"]["type"]) == (1, "ModelRefused")
    assert len(models.calls) == 1
