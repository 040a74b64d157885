"""What a colleague's forgotten transaction costs: a drain beside an old snapshot, and without one.

    python benchmarks/old_snapshot.py [--runs 200000] [--rounds 1] [--concurrency 1000] [--json FILE] [--database-url URL]

No-op tasks are submitted and drained by one worker in this process, in rounds without and with a transaction that has read the
tables before and stays open: as long as it does, the index entries of claimed runs cannot be removed. The figure is the ratio
of the rates; beside it stand the rates of the first and of the last tenth of the runs.
"""

import time

import anyio
import psycopg
from _bench import database, medians, parser, server, table, write

from pgrun import PostgresDb, Worker

BATCH = 10_000


async def drain(url: str, runs: int, concurrency: int) -> dict[str, float]:
    """Rates in runs per second."""
    started: list[float] = []
    db = PostgresDb(url, worker="external")

    @db.task(name="noop")
    async def noop(number: int) -> int:
        started.append(time.monotonic())
        return number

    async with db:
        for first in range(0, runs, BATCH):
            await noop.asubmit_many([{"number": number} for number in range(first, min(first + BATCH, runs))])
        began = time.monotonic()
        async with Worker(db, concurrency=concurrency) as worker:
            while len(started) < runs or worker.running:  # noqa: ASYNC110  a look costs nothing here
                await anyio.sleep(0.01)
        ended = time.monotonic()
    tenth = runs // 10
    return {
        "all": runs / (ended - began),
        "first tenth": tenth / (started[tenth - 1] - started[0]),
        "last tenth": tenth / (started[-1] - started[-tenth]),
    }


async def one_round(on: str, runs: int, concurrency: int, held: bool) -> dict[str, float]:
    """A drain in a new database, beside an old snapshot if it is held."""
    with database(on) as url:
        async with PostgresDb(url, worker="external") as db:
            await db.amigrate()
        with psycopg.connect(url) as colleague:
            if held:
                colleague.execute("set transaction isolation level repeatable read")
                colleague.execute("select count(*) from pgrun.jobs")
            figures = await drain(url, runs, concurrency)
            colleague.rollback()
    return figures


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--runs", type=int, default=200_000)
    made.add_argument("--rounds", type=int, default=1)
    made.add_argument("--concurrency", type=int, default=1000)
    options = made.parse_args()
    rounds: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    with server(options.database_url) as on:
        for _ in range(options.rounds):
            for name, figures in rounds.items():
                figures.append(
                    anyio.run(lambda held: one_round(on, options.runs, options.concurrency, held=held), name == "with")
                )
    found = {name: medians(figures) for name, figures in rounds.items()}
    table(["runs per second", *found["with"]], {name: [*figures.values()] for name, figures in found.items()})
    ratio = found["with"]["all"] / found["without"]["all"]
    print(f"with an old snapshot / without: {ratio:.2f}")
    write(options.json, {"runs": options.runs, **found, "ratio": ratio})


if __name__ == "__main__":
    main()
