"""What it costs to submit with more than an input: 100,000 calls in one `asubmit_many`, and single calls, beside plain ones.

    python benchmarks/submitting.py [--runs 100000] [--single 500] [--rounds 3] [--json FILE] [--database-url URL]

Per round, in new databases: plain calls; calls with tags; calls with a key each; the same keys again, all of which are held. Then
single calls one after the other: plain, with a key, and on a connection that the caller lends, in a transaction for each.
Medians, the ratio of each to the plain form, and the memory that the client took at most.
"""

import resource
import time
from collections.abc import Awaitable, Callable

import anyio
import psycopg
from _bench import database, parser, server, settle
from _figures import medians, table, write
from _tasks import noop

from pgrun import PostgresDb, Task


async def measure(url: str, runs: int, single: int) -> dict[str, float]:
    """Runs per second of each way to submit."""
    async with PostgresDb(url, worker="external") as db, await psycopg.AsyncConnection.connect(url) as lent:
        task = db.task(noop)
        calls, keys = [{"number": number} for number in range(runs)], [f"order-{number}" for number in range(runs)]
        await task.asubmit_many(calls[:100])
        rates = {
            "plain": await _rate(runs, lambda: task.asubmit_many(calls)),
            "tags": await _rate(runs, lambda: task.options(tags=["import", "night"]).asubmit_many(calls)),
            "a key each": await _rate(runs, lambda: task.asubmit_many(calls, keys=keys)),
            "keys that are held": await _rate(runs, lambda: task.asubmit_many(calls, keys=keys)),
        }
        settle(url)
        rates["single, plain"] = await _rate(single, lambda: _one_by_one(single, task.asubmit))
        rates["single, a key"] = await _rate(
            single, lambda: _one_by_one(single, lambda number: task.options(key=f"single-{number}").asubmit(number))
        )
        rates["single, lent"] = await _rate(
            single, lambda: _one_by_one(single, lambda number: _lent(task, lent, number))
        )
        return rates


async def _lent(task: "Task[..., int]", conn: "psycopg.AsyncConnection[object]", number: int) -> None:
    await task.options(conn=conn).asubmit(number)
    await conn.commit()


async def _one_by_one(count: int, submit: Callable[[int], Awaitable[object]]) -> None:
    for number in range(count):
        await submit(number)


async def _rate(count: int, work: Callable[[], Awaitable[object]]) -> float:
    began = time.monotonic()
    await work()
    return count / (time.monotonic() - began)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--runs", type=int, default=100_000)
    made.add_argument("--single", type=int, default=500)
    made.add_argument("--rounds", type=int, default=3)
    options = made.parse_args()
    rounds: list[dict[str, float]] = []
    with server(options.database_url) as on:
        for _ in range(options.rounds):
            with database(on) as url:
                rounds.append(anyio.run(measure, url, options.runs, options.single))
        figures = medians(rounds)
        plain = {name: figures["single, plain" if name.startswith("single") else "plain"] for name in figures}
        table(
            ["runs per second", "rate", "ratio"], {name: [rate, rate / plain[name]] for name, rate in figures.items()}
        )
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"client: {memory} MiB at most")
        write(
            options.json, on, {"runs": options.runs, "rounds": options.rounds, "rates": figures, "client_mib": memory}
        )


if __name__ == "__main__":
    main()
