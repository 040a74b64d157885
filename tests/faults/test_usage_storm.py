"""Many runs at a provider that fails in every way, on workers that are killed: each row has what its answers have cost.

The short form, with every way in one run, is in tests/postgres/test_usage.py.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel
from support.database import Conn
from support.processes import Processes
from support.tables import one
from support.until import until

from pgrun import Agent, OpenAIResponses, PostgresDb, RetryPolicy
from pgrun.testing import ModelServer, Usage, cut, failed, invalid_json, rate_limited, reply, server_error
from pgrun.testing.answers import Answer

pytestmark = [pytest.mark.soak, pytest.mark.timeout(180)]

RUNS, KILLS, CONCURRENCY = 120, 6, 4

KNOWN = """select s.run_id, s.data ->> 'response_id' as response_id from pgrun.steps s where s.kind = 'model_call'
           union select run_id, metrics #>> '{last_answer,response_id}' from pgrun.jobs"""


class City(BaseModel):
    name: str


def moods(seed: int) -> Callable[[Any], Answer]:
    """What a provider answers that has good and bad moments."""
    chance = random.Random(seed)

    def good() -> Answer:
        usage = Usage(chance.randrange(1, 1000), chance.randrange(1, 1000))
        return reply({"name": "Rome"}, usage=usage, deltas=4, interval=chance.choice((0.0, 0.05)))

    ways: list[Callable[[], Answer]] = [
        *[good] * 6,
        *(lambda: cut(good(), chance.randrange(3, 8)), lambda: cut(good(), clean=True), invalid_json),
        *(lambda: failed("server_error"), server_error, lambda: rate_limited(0.01)),
    ]
    return lambda body: chance.choice(ways)()


def ended_in(conn: Conn) -> int:
    """How many runs have ended."""
    return int(one(conn, "select count(*) from pgrun.jobs where finished_at is not null"))


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_rows_and_bill_agree(db: PostgresDb, dsn: str, conn: Conn, provider: ModelServer, seed: int) -> None:
    provider.always(moods(seed))
    model = OpenAIResponses("gpt-5-mini", api_key="test")
    retry = RetryPolicy(max_attempts=50, base_delay=0.02, max_delay=0.1)
    agent = Agent(name="Cities", model=model, output_schema=City, retry=retry, db=db)
    with Processes(dsn, provider.environ) as processes:

        def start() -> Any:
            return processes.worker("--concurrency", str(CONCURRENCY), lease=1.5)

        workers = [start(), start()]
        runs = [await agent.arun("Rome?", background=True) for _ in range(RUNS)]
        for killed in range(1, KILLS + 1):
            enough = RUNS * killed // (KILLS + 1)
            await until(lambda: ended_in(conn) >= enough, within=60)  # noqa: B023  over within the round
            workers.pop(0).kill()
            workers.append(start())
        ended = await db.await_runs([run.run_id for run in runs], timeout=90)
    paid = {
        response_id: usage.input_tokens + usage.output_tokens
        for response_id, usage in provider.paid_by_response.items()
    }
    known = conn.execute(KNOWN.encode()).fetchall()
    for run in ended:
        answers = [row["response_id"] for row in known if str(row["run_id"]) == run.run_id]
        assert run.metrics.total_tokens == sum(paid[each] for each in answers if each), run
    lost = paid.keys() - {row["response_id"] for row in known}
    assert len(lost) <= KILLS * CONCURRENCY, "only calls that were killed between their request and its id"
    total = one(conn, "select sum(total_tokens) from pgrun.usage_by_tree")
    assert total == sum(tokens for response_id, tokens in paid.items() if response_id not in lost)
    assert {run.status for run in ended} <= {"completed", "error"}
