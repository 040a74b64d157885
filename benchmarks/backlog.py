"""What lies in the table besides: how fast runs pass a backlog, or millions of finished ones, as ratios to an empty table.

    python benchmarks/backlog.py [--waiting 1000000] [--scheduled 1000000] [--finished 10000000]
                                 [--runs 20000] [--calls 500] [--rounds 3] [--concurrency 1000] [--json FILE] [--database-url URL]

Cases: so many runs wait in another queue; so many wait there and as many behind the measured ones, in the same queue at a lower
priority; so many are scheduled for tomorrow; so many have ended. Each is measured in rounds, and before each round the
same in an empty table: a drain of no-ops by one worker, and the time from submit to start of single calls, one every 20 ms, with
a worker process that is idle, except where runs wait behind: there it works through them, and a call overtakes them all. A size
of 0 leaves a case out: --waiting 2000 --scheduled 2000 --finished 20000 --runs 2000 --calls 20 --rounds 1 takes seconds.
"""

import sys
from argparse import Namespace
from collections.abc import Mapping

import anyio
from _backlog import Backlog, free_disk, sizes
from _bench import TASKS, await_workers, database, parser, server, settle, worker
from _figures import medians, quantiles, table, write
from _load import drain, fill, latency

PAUSE = 0.02  # seconds between calls
Figures = Mapping[str, float]


def measure(url: str, options: Namespace) -> Figures:
    """Runs per second of a drain; milliseconds from submit to start."""
    fill(url, options.runs)
    settle(url)
    drained = anyio.run(lambda: drain(url, options.runs, concurrency=options.concurrency))
    settle(url)
    with worker(url, *TASKS):
        await_workers(url)
        started = quantiles(anyio.run(lambda: latency(url, options.calls, pause=PAUSE)))
    return {"drain": drained.rate, "p50": started["p50"], "p99": started["p99"]}


def compare(on: str, backlog: Backlog, options: Namespace) -> dict[str, dict[str, float]]:
    """Medians beside a backlog and beside nothing, their ratios, and the megabytes that the backlog takes."""
    found: dict[str, list[Figures]] = {"empty": [], "with": []}
    with database(on) as full:
        backlog.put_into(full)
        settle(full)
        taken = sizes(full)
        for _ in range(options.rounds):
            with database(on) as empty:
                found["empty"].append(measure(empty, options))
            found["with"].append(measure(full, options))
    both = {name: medians(rounds) for name, rounds in found.items()}
    ratio = {name: round(figure / both["empty"][name], 3) for name, figure in both["with"].items()}
    return {**both, "ratio": ratio, "megabytes": taken}


def cases(options: Namespace) -> dict[str, Backlog]:
    """By name; those without rows are left out."""
    waiting, scheduled, finished = options.waiting, options.scheduled, options.finished
    every = {
        f"{waiting:,} waiting elsewhere": Backlog(elsewhere=waiting),
        f"{waiting:,} elsewhere, {waiting:,} behind": Backlog(elsewhere=waiting, behind=waiting),
        f"{scheduled:,} scheduled": Backlog(scheduled=scheduled),
        f"{finished:,} finished": Backlog(finished=finished),
    }
    return {name: backlog for name, backlog in every.items() if backlog.rows}


def show(found: Mapping[str, Mapping[str, Figures]]) -> None:
    """Prints the figures beside each backlog, and their ratios to those beside nothing."""
    rows = {
        name: [cell for what, figure in case["with"].items() for cell in (figure, case["ratio"][what])]
        for name, case in found.items()
    }
    table(["beside", "drain, runs/s", "to empty", "start p50, ms", "to empty", "start p99, ms", "to empty"], rows)
    for name, case in found.items():
        print(f"{name}: " + ", ".join(f"{what} {size:,.0f} MB" for what, size in case["megabytes"].items()))


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--waiting", type=int, default=1_000_000)
    made.add_argument("--scheduled", type=int, default=1_000_000)
    made.add_argument("--finished", type=int, default=10_000_000)
    made.add_argument("--runs", type=int, default=20_000)
    made.add_argument("--calls", type=int, default=500)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--concurrency", type=int, default=1000)
    options = made.parse_args()
    chosen = cases(options)
    needed = max((backlog.disk for backlog in chosen.values()), default=0)
    if not options.database_url and free_disk() < needed:
        sys.exit(f"{needed / 1e9:.0f} GB are needed for the private server, {free_disk() / 1e9:.0f} GB are free")
    found = {}
    with server(options.database_url) as on:
        for name, backlog in chosen.items():
            found[name] = compare(on, backlog, options)
            write(options.json, on, {"runs": options.runs, "calls": options.calls, "cases": found})
        show(found)


if __name__ == "__main__":
    main()
