"""What a colleague's forgotten transaction costs: a drain beside an old snapshot, and without one.

    python benchmarks/old_snapshot.py [--runs 200000] [--rounds 3] [--concurrency 1000] [--json FILE] [--database-url URL]

No-op tasks are submitted and drained by one worker in this process, in rounds without and with a transaction that has read the
tables before and stays open: as long as it does, the index entries of claimed runs cannot be removed. The figure is the ratio
of the median rates; beside it stand the rates of the first and of the last tenth of the runs.
"""

import anyio
import psycopg
from _bench import database, parser, server
from _figures import medians, table, write
from _load import drain
from _tasks import noop

from pgrun import PostgresDb

BATCH = 10_000


async def submit_and_drain(url: str, runs: int, concurrency: int) -> dict[str, float]:
    """Rates in runs per second."""
    async with PostgresDb(url, worker="external") as db:
        task = db.task(noop)
        for first in range(0, runs, BATCH):
            await task.asubmit_many([{"number": number} for number in range(first, min(first + BATCH, runs))])
    drained = await drain(url, runs, concurrency=concurrency)
    started, tenth = drained.started, runs // 10
    return {
        "all": drained.rate,
        "first tenth": tenth / (started[tenth - 1] - started[0]),
        "last tenth": tenth / (started[-1] - started[-tenth]),
    }


def one_round(on: str, runs: int, concurrency: int, *, held: bool) -> dict[str, float]:
    """A drain in a new database, beside an old snapshot if it is held."""
    with database(on) as url, psycopg.connect(url) as colleague:
        if held:
            colleague.execute("set transaction isolation level repeatable read")
            colleague.execute("select count(*) from pgrun.jobs")
        figures = anyio.run(submit_and_drain, url, runs, concurrency)
        colleague.rollback()
    return figures


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--runs", type=int, default=200_000)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--concurrency", type=int, default=1000)
    options = made.parse_args()
    rounds: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    with server(options.database_url) as on:
        for _ in range(options.rounds):
            for name, figures in rounds.items():
                figures.append(one_round(on, options.runs, options.concurrency, held=name == "with"))
        found = {name: medians(figures) for name, figures in rounds.items()}
        table(["runs per second", *found["with"]], {name: [*figures.values()] for name, figures in found.items()})
        ratio = found["with"]["all"] / found["without"]["all"]
        print(f"with an old snapshot / without: {ratio:.2f}")
        write(options.json, on, {"runs": options.runs, "rounds": options.rounds, **found, "ratio": ratio})


if __name__ == "__main__":
    main()
