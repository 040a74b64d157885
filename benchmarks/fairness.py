"""How soon a single run of one key starts while another key has a hundred thousand in the same queue.

    python benchmarks/fairness.py [--flood 100000] [--nap 0.05] [--calls 300] [--pause 0.02] [--concurrency 50] [--rounds 5]
                                  [--json FILE] [--database-url URL]

One worker process. Single calls of one key are made every 20 ms: while nothing else is there; while runs of another key fill all
its slots, 25 to 75 ms long or all of 50; and while key_concurrency leaves slots to others. Milliseconds from submit to start,
with the ratio to the idle case. The cases take turns, each in a new database; medians of the rounds.
"""

import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass

import anyio
import psycopg
from _bench import TASKS, await_workers, database, parser, server, settle, worker
from _figures import medians, quantiles, table, write
from _load import WARM, called, calling


@dataclass(frozen=True)
class Case:
    """What limits the queue, whether there is a flood, and by which part its runs differ in length."""

    limits: str = ""
    floods: bool = True
    spread: float = 0.0


CASES: Mapping[str, Case] = {
    "nothing else": Case(floods=False),
    "keys in turn": Case(spread=0.5),
    "keys in turn, all runs as long": Case(),
    "key_concurrency = 40, all as long": Case("key_concurrency = 40"),
}

FLOOD = """insert into pgrun.jobs (kind, name, input, concurrency_key)
           select 'task', 'nap', jsonb_build_object('seconds', %s * (1 + %s * (2 * random() - 1))), 'flood'
             from generate_series(1, %s) n"""


def measure(on: str, case: Case, options: Namespace) -> Mapping[str, float]:
    """Milliseconds from submit to start: p50, p95, p99."""
    with database(on) as url, psycopg.connect(url, autocommit=True) as conn:
        if case.limits:
            conn.execute(f"update pgrun.queues set {case.limits} where queue = 'default'".encode())
        if case.floods:
            conn.execute(FLOOD, [options.nap, case.spread, options.flood])
        settle(url)
        with worker(url, *TASKS, "--concurrency", str(options.concurrency)):
            await_workers(url)
            while case.floods and not _some_ended(conn):
                time.sleep(0.05)
            return quantiles(anyio.run(_latency, url, options.calls, options.pause))


def _some_ended(conn: psycopg.Connection) -> bool:
    return bool(conn.execute("select from pgrun.jobs where finished_at is not null limit 1").fetchall())


async def _latency(url: str, calls: int, pause: float) -> list[float]:
    """Seconds until single calls of one key started, one made every `pause` seconds."""
    samples: list[float] = []

    async def sample() -> None:
        until_start, _ = await called(single)
        samples.append(until_start)

    async with calling(url) as task:
        single = task.options(concurrency_key="single")
        for _ in range(WARM):
            await sample()
        samples.clear()
        async with anyio.create_task_group() as open_calls:
            for _ in range(calls):
                open_calls.start_soon(sample)
                await anyio.sleep(pause)
    return samples


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--flood", type=int, default=100_000)
    made.add_argument("--nap", type=float, default=0.05)
    made.add_argument("--calls", type=int, default=300)
    made.add_argument("--pause", type=float, default=0.02)
    made.add_argument("--concurrency", type=int, default=50)
    made.add_argument("--rounds", type=int, default=5)
    options = made.parse_args()
    rounds: dict[str, list[Mapping[str, float]]] = {name: [] for name in CASES}
    with server(options.database_url) as on:
        for _ in range(options.rounds):
            for name, case in CASES.items():
                rounds[name].append(measure(on, case, options))
        found = {name: medians(figures) for name, figures in rounds.items()}
        idle = found["nothing else"]
        rows = {
            name: [cell for what in ("p50", "p95", "p99") for cell in (figures[what], figures[what] / idle[what])]
            for name, figures in found.items()
        }
        table(["a single run's start", "p50, ms", "to idle", "p95, ms", "to idle", "p99, ms", "to idle"], rows)
        write(options.json, on, {"flood": options.flood, "rounds": options.rounds, "cases": found})


if __name__ == "__main__":
    main()
