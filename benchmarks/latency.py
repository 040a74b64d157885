"""How much pgrun adds to the time a model takes: submit → request at the model, and last byte of the answer → typed result.

    python benchmarks/latency.py [--runs 300] [--pause 0.02] [--json FILE] [--database-url URL]

One client process, one worker process, a model server in the client's process, a private Postgres unless a URL is given. Each
run is followed by a raw NOTIFY → LISTEN round trip on the same server, so that both see the same machine; the ratio is what
travels to other machines.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import anyio
import psycopg
from pydantic import BaseModel

from pgrun import Agent, OpenAIResponses, PostgresDb
from pgrun.db.embedded import EmbeddedPostgres
from pgrun.testing import ModelServer


class Fact(BaseModel):
    """A typical small structured answer."""

    city: str
    country: str
    fun_fact: str


def main() -> None:
    options = _options()
    with ExitStack() as stack:
        models = stack.enter_context(ModelServer())
        url = options.database_url or stack.enter_context(_private_postgres())
        environment = {**os.environ, **models.environ, "PGRUN_DATABASE_URL": url}
        stack.enter_context(_worker(environment))
        samples = anyio.run(_measure, url, models, options.runs, options.pause)
    report = {name: _quantiles(values) for name, values in samples.items()}
    _print(report)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"runs": options.runs, "milliseconds": report}, file, indent=2)


async def _measure(url: str, models: ModelServer, runs: int, pause: float) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {
        "submit → request at the model": [],
        "answer → typed result": [],
        "raw NOTIFY": [],
    }
    db = PostgresDb(url, worker="external")
    model = OpenAIResponses(id="gpt-5-mini", base_url=models.base_url, api_key="unused")
    agent = Agent(name="Latency", model=model, output_schema=Fact, db=db)
    conninfo = (await db.connected()).runtime.address.conninfo
    async with (
        db,
        await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as talks,
        await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as hears,
    ):
        await hears.execute("listen latency")
        for number in range(-10, runs):  # the first ten warm up
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
            await anyio.sleep(pause)
    return samples


async def _round_trip(talks: psycopg.AsyncConnection, hears: psycopg.AsyncConnection) -> float:
    started = time.monotonic()
    await talks.execute("select pg_notify('latency', '')")
    async for _ in hears.notifies(stop_after=1):
        pass
    return time.monotonic() - started


@contextmanager
def _private_postgres() -> Iterator[str]:
    with (
        tempfile.TemporaryDirectory(prefix="pgrun-bench-", ignore_cleanup_errors=True) as directory,
        EmbeddedPostgres(directory + "/postgres") as server,
    ):
        yield server.conninfo


@contextmanager
def _worker(environment: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, "-m", "pgrun", "worker", "--log-level", "warning"]
    worker = subprocess.Popen(command, env=environment)
    try:
        yield
    finally:
        worker.terminate()
        worker.wait()


def _quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {f"p{q}": round(ordered[min(len(ordered) * q // 100, len(ordered) - 1)] * 1000, 2) for q in (50, 95, 99)}


def _print(report: dict[str, dict[str, float]]) -> None:
    raw = report["raw NOTIFY"]["p50"]
    print(f"{'milliseconds':32}{'p50':>8}{'p95':>8}{'p99':>8}{'p50 / raw':>12}")
    for name, figures in report.items():
        cells = "".join(f"{figure:8.2f}" for figure in figures.values())
        print(f"{name:32}{cells}{figures['p50'] / raw:12.1f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between runs")
    parser.add_argument("--json", help="also write the figures there")
    parser.add_argument("--database-url")
    return parser.parse_args()


if __name__ == "__main__":
    main()
