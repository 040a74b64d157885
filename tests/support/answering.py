"""Agents whose provider works in the background, the answers that it works on, and its bill."""

from typing import Any

from pydantic import BaseModel

from pgrun import Agent, OpenAIResponses, PostgresDb, RetryPolicy, RunOutput, Worker
from pgrun.testing import ModelServer, Usage
from support.database import Conn
from support.rows import row_of
from support.tables import one
from support.until import until

SOON = RetryPolicy(base_delay=0.02, max_attempts=4)
USED = Usage(100, 50)


class City(BaseModel):
    name: str


def agent_at(
    provider: ModelServer, db: PostgresDb, name: str = "Answering", *, timeout: float = 600.0, **options: Any
) -> Agent[Any]:
    """An agent that tries again soon; `timeout` is its model's."""
    model = OpenAIResponses("gpt-5-mini", base_url=provider.base_url, api_key="test", timeout=timeout)
    return Agent(name=name, model=model, db=db, retry=SOON, **options)


async def until_noted(conn: Conn, run_id: str) -> str:
    """The id of the answer, as soon as it is in the run's row."""

    def noted() -> str | None:
        call = row_of(conn, run_id)["call"] or {}
        return call.get("response_id")

    return str(await until(noted, shown=run_id))


async def left_under_way(db: PostgresDb, agent: Agent[Any], conn: Conn, message: str = "Hello") -> RunOutput[Any]:
    """A run whose answer the provider works on, while its worker has gone."""
    async with Worker(db):
        run = await agent.arun(message, background=True)
        await until_noted(conn, run.run_id)
    return run


def status_at(provider: ModelServer, response_id: str) -> str:
    return str(provider.responses[response_id]["status"])


def assert_bill_agrees(conn: Conn, provider: ModelServer) -> None:
    """All runs together have used what the provider was paid for."""
    used = one(conn, "select sum((metrics ->> 'total_tokens')::int) from pgrun.jobs")
    paid = provider.paid_tokens
    assert used == paid.input_tokens + paid.output_tokens, (used, paid)
