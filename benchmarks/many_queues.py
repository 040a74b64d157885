"""One worker, many queues, or many priorities in one: how fast it drains the same runs, and how soon a single one starts.

    python benchmarks/many_queues.py [--runs 20000] [--queues 1,10,100,1000] [--priorities 5,20] [--calls 200] [--rounds 3]
                                     [--concurrency 1000] [--json FILE] [--database-url URL]

No-ops are spread evenly over so many queues, or over so many priorities of one queue, and drained by one worker that serves
all of them. Then a worker process serves them idly, and single calls go round them, one every 20 ms. The cases take turns,
each in a new database; medians of the rounds, and their ratios to one queue with one priority.
"""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass

import anyio
import psycopg
from _bench import TASKS, await_workers, database, parser, server, settle, worker
from _figures import medians, quantiles, table, write
from _load import drain, fill, latency

PAUSE = 0.02  # seconds between calls
Figures = Mapping[str, float]


@dataclass(frozen=True)
class Case:
    """Where the runs go."""

    queues: tuple[str, ...] = ("q0",)
    priorities: tuple[int, ...] = (0,)

    @property
    def name(self) -> str:
        """As it stands in tables."""
        queues = f"{len(self.queues):,} queue{'s' if len(self.queues) > 1 else ''}"
        return f"{queues}, {len(self.priorities)} priorities" if len(self.priorities) > 1 else queues


def measure(on: str, case: Case, options: Namespace) -> Figures:
    """Runs per second of a drain; milliseconds from submit to start."""
    queues, priorities = case.queues, case.priorities
    with database(on) as url:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("insert into pgrun.queues (queue) select unnest(%s::text[])", [list(queues)])
        fill(url, options.runs, queues=queues, priorities=priorities)
        settle(url)
        drained = anyio.run(lambda: drain(url, options.runs, concurrency=options.concurrency, queues=queues))
        settle(url)
        with worker(url, *TASKS, "--queues", ",".join(queues)):
            await_workers(url)
            started = quantiles(
                anyio.run(lambda: latency(url, options.calls, pause=PAUSE, queues=queues, priorities=priorities))
            )
    return {"drain": drained.rate, "p50": started["p50"], "p99": started["p99"]}


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--runs", type=int, default=20_000)
    made.add_argument("--queues", type=numbers, default=[1, 10, 100, 1000])
    made.add_argument("--priorities", type=numbers, default=[5, 20])
    made.add_argument("--calls", type=int, default=200)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--concurrency", type=int, default=1000)
    options = made.parse_args()
    cases = [Case(queues=tuple(f"q{n}" for n in range(many))) for many in dict.fromkeys([1, *options.queues])]
    cases += [Case(priorities=tuple(range(many))) for many in options.priorities]
    rounds: dict[str, list[Figures]] = {case.name: [] for case in cases}
    with server(options.database_url) as on:
        for _ in range(options.rounds):
            for case in cases:
                rounds[case.name].append(measure(on, case, options))
        found = {name: medians(figures) for name, figures in rounds.items()}
        one = found[cases[0].name]
        rows = {
            name: [cell for what in case for cell in (case[what], case[what] / one[what])]
            for name, case in found.items()
        }
        table(["spread over", "drain, runs/s", "to one", "start p50, ms", "to one", "start p99, ms", "to one"], rows)
        write(
            options.json, on, {"runs": options.runs, "calls": options.calls, "rounds": options.rounds, "cases": found}
        )


if __name__ == "__main__":
    main()
