"""How long a token takes from the model's client library to a reader in another process, and what its stream costs in writes.

    python benchmarks/stream.py [--tokens 200] [--per-second 50] [--json FILE] [--database-url URL]

A worker process whose model says tokens at a steady rate, each the moment at which it was said; a reader process that
subtracts. Once with one stream, once with twenty at a time, once with one stream that fifty read; before each raw NOTIFY → LISTEN
round trips.
"""

import time
from collections.abc import Sequence

import anyio
import psycopg
from _bench import parser, server, worker
from _daemon_streams import clock_agent
from _figures import quantiles, table, write
from latency import _round_trip

from pgrun import PostgresDb, RunOutput


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--tokens", type=int, default=200, help="per stream")
    made.add_argument("--per-second", type=float, default=50, help="tokens per second and stream")
    options = made.parse_args()
    with server(options.database_url) as url, worker(url, "--import", "_daemon_streams"):
        report = anyio.run(_measure, url, options.tokens, options.per_second)
        write(options.json, url, {"tokens": options.tokens, "per_second": options.per_second, "streams": report})
    columns = ["p50", "p95", "p99", "writes/s", "writes/s a stream", "tokens/s"]
    table(
        ["milliseconds", *columns], {name: [figures[column] for column in columns] for name, figures in report.items()}
    )


async def _measure(url: str, tokens: int, per_second: float) -> dict[str, dict[str, float]]:
    db = PostgresDb(url, worker="external")
    agent = clock_agent(db)
    report: dict[str, dict[str, float]] = {}
    async with db:
        conninfo = (await db.connected()).runtime.address.conninfo
        for name, streams, readers in (("1 stream", 1, 1), ("20 streams", 20, 1), ("1 stream, 50 readers", 1, 50)):
            report[f"raw NOTIFY before {name}"] = await _raw(conninfo)
            await _read([await agent.arun("20 0.01", background=True, stream=True)], 1)  # warms up
            said = f"{tokens} {1 / per_second}"
            runs = [await agent.arun(said, background=True, stream=True) for _ in range(streams)]
            began = time.monotonic()
            late = await _read(runs, readers)
            took = time.monotonic() - began
            writes = await _writes(conninfo, [run.run_id for run in runs])
            rates = {"writes/s": writes / took, "writes/s a stream": writes / took / streams}
            report[name] = quantiles(late) | rates | {"tokens/s": len(late) / readers / took}
    return report


async def _read(runs: Sequence[RunOutput[str]], readers: int) -> list[float]:
    """How late each token was for each reader, in seconds."""
    late: list[float] = []

    async def read(run: RunOutput[str]) -> None:
        async for event in run.aevents():
            now = time.monotonic()
            late.extend(now - float(token) for token in event.text.split())

    async with anyio.create_task_group() as group:
        for run in runs:
            for _ in range(readers):
                group.start_soon(read, run)
    return late


async def _writes(conninfo: str, run_ids: list[str]) -> int:
    """How many transactions have written events of these runs."""
    async with await psycopg.AsyncConnection.connect(conninfo) as conn:
        query = "select count(distinct xmin::text) from pgrun.events where run_id = any (%s::uuid[])"
        row = await (await conn.execute(query, [run_ids])).fetchone()
    assert row is not None
    return int(row[0])


async def _raw(conninfo: str) -> dict[str, float]:
    async with (
        await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as talks,
        await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as hears,
    ):
        await hears.execute("listen latency")
        times = []
        for _ in range(100):
            times.append(await _round_trip(talks, hears))
            await anyio.sleep(0.01)
    return quantiles(times) | {"writes/s": 0.0, "writes/s a stream": 0.0, "tokens/s": 0.0}


if __name__ == "__main__":
    main()
