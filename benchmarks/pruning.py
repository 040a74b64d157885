"""How soon a single run starts while a day's ended runs are deleted, and how fast these go.

    python benchmarks/pruning.py [--finished 1000000] [--calls 100] [--pause 0.02] [--rounds 3] [--json FILE] [--database-url URL]

So many runs have ended within the last thirty days. In each round `pgrun prune`, in a process of its own, deletes those of the
oldest day that is left, while single calls are made, one every 20 ms, to a worker process that is idle otherwise; before it so
many calls are made without. Milliseconds from submit to start, with the ratio to those without, and the runs deleted per second.
"""

import json
import sys
import time
from argparse import Namespace
from collections.abc import Mapping

import anyio
from _backlog import DAYS, Backlog
from _bench import TASKS, await_workers, database, parser, server, settle, worker
from _figures import medians, quantiles, table, write
from _load import latency


def measure(url: str, day: int, options: Namespace) -> Mapping[str, Mapping[str, float]]:
    """Milliseconds from submit to start, without and with; and runs deleted per second."""
    settle(url)
    with worker(url, *TASKS):
        await_workers(url)
        without = anyio.run(lambda: latency(url, options.calls, pause=options.pause))
        rate, meanwhile = anyio.run(_prune_and_call, url, day, options)
    return {"without": quantiles(without), "pruning": quantiles(meanwhile), "pruned": {"rate": rate}}


async def _prune_and_call(url: str, day: int, options: Namespace) -> tuple[float, list[float]]:
    """Runs deleted per second of the command, and what `latency` gives until it has ended."""
    command = [sys.executable, "-m", "pgrun", "prune", "--older-than", f"{day}d", "--json", "--database-url", url]
    samples: list[float] = []
    ended = anyio.Event()

    async def call() -> None:
        while not ended.is_set():
            samples.extend(await latency(url, options.calls, pause=options.pause))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        began = time.monotonic()
        said = json.loads((await anyio.run_process(command)).stdout)
        rate = said["deleted"] / (time.monotonic() - began)
        ended.set()
    return rate, samples


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--finished", type=int, default=1_000_000)
    made.add_argument("--calls", type=int, default=100)
    made.add_argument("--pause", type=float, default=0.02)
    made.add_argument("--rounds", type=int, default=3)
    options = made.parse_args()
    with server(options.database_url) as on, database(on) as url:
        Backlog(finished=options.finished).put_into(url)
        rounds = [measure(url, DAYS - 1 - number, options) for number in range(options.rounds)]
        found = {case: medians([each[case] for each in rounds]) for case in rounds[0]}
        without, pruning = found["without"], found["pruning"]
        table(
            ["a single run's start", "without", "while pruning", "to without"],
            {
                f"{what}, ms": [without[what], pruning[what], pruning[what] / without[what]]
                for what in ("p50", "p95", "p99")
            },
        )
        print(f"{found['pruned']['rate']:,.0f} runs deleted per second")
        write(options.json, on, {"finished": options.finished, "rounds": options.rounds, **found})


if __name__ == "__main__":
    main()
