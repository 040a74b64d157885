"""How much pgrun adds to the time a model takes: submit → request at the model, and last byte of the answer → typed result.

    python benchmarks/latency.py [--runs 300] [--pause 0.02] [--background] [--json FILE] [--database-url URL]

One client process, one worker process, a model server in the client's process, a private Postgres unless a URL is given. Each
run is followed by a raw NOTIFY → LISTEN round trip on the same server, so that both see the same machine; the ratio is what
travels to other machines.
"""

import time
from argparse import Namespace
from contextlib import ExitStack

import anyio
import psycopg
from _bench import parser, server, worker
from _figures import quantiles, table, write
from pydantic import BaseModel

from pgrun import Agent, OpenAIResponses, PostgresDb
from pgrun.testing import ModelServer


class Fact(BaseModel):
    """A typical small structured answer."""

    city: str
    country: str
    fun_fact: str


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--runs", type=int, default=300)
    made.add_argument("--pause", type=float, default=0.02, help="seconds between runs")
    made.add_argument("--background", action="store_true", help="in the provider's background mode, which takes 50 ms")
    options = made.parse_args()
    with ExitStack() as stack:
        models = stack.enter_context(ModelServer(delay=0.05 if options.background else 0.0))
        url = stack.enter_context(server(options.database_url))
        stack.enter_context(worker(url, environment=models.environ))
        samples = anyio.run(_measure, url, models, options)
        report = {name: quantiles(values) for name, values in samples.items()}
        raw = report["raw NOTIFY"]["p50"]
        table(
            ["milliseconds", "p50", "p95", "p99", "p50 / raw"],
            {name: [*figures.values(), figures["p50"] / raw] for name, figures in report.items()},
        )
        write(options.json, url, {"runs": options.runs, "milliseconds": report})


async def _measure(url: str, models: ModelServer, options: Namespace) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {
        "submit → request at the model": [],
        "answer → typed result": [],
        "raw NOTIFY": [],
    }
    db = PostgresDb(url, worker="external")
    model = OpenAIResponses(id="gpt-5-mini", base_url=models.base_url, api_key="unused", background=options.background)
    agent = Agent(name="Latency", model=model, output_schema=Fact, db=db)
    conninfo = (await db.connected()).runtime.address.conninfo
    async with (
        db,
        await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as talks,
        await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as hears,
    ):
        await hears.execute("listen latency")
        for number in range(-10, options.runs):  # the first ten warm up
            submitted = time.monotonic()
            run = await agent.arun("Tell me about Rome.", background=True)
            await run.aresult(timeout=30)
            ended = time.monotonic()
            call = models.calls[-1]
            assert call.answered_at is not None
            figures = (call.received_at - submitted, ended - call.answered_at, await _round_trip(talks, hears))
            if number >= 0:
                for values, figure in zip(samples.values(), figures, strict=True):
                    values.append(figure)
            await anyio.sleep(options.pause)
    return samples


async def _round_trip(talks: psycopg.AsyncConnection, hears: psycopg.AsyncConnection) -> float:
    started = time.monotonic()
    await talks.execute("select pg_notify('latency', '')")
    async for _ in hears.notifies(stop_after=1):
        pass
    return time.monotonic() - started


if __name__ == "__main__":
    main()
