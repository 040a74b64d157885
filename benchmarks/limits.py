"""What limits of a queue cost: the same no-ops drained by the same workers, without a limit and with one that never binds.

    python benchmarks/limits.py [--runs 20000] [--workers 1,4] [--concurrency 200] [--keys 100] [--rounds 5]
                                [--json FILE] [--database-url URL]

Worker processes wait for a paused queue with so many runs in it; it is resumed, and the time counts from the first start to the
last end in the rows. The cases take turns, each in a new database; medians of the rounds, and their ratios to the case without
a limit. The last two cases are a limit that binds, and workers with as many slots together as it allows.
"""

import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import psycopg
from _bench import TASKS, await_workers, database, parser, server, settle, worker
from _figures import medians, table, write

BINDING = 100
"""A limit that binds, and the slots of all workers together that it is compared with."""


@dataclass(frozen=True)
class Case:
    """Limits of the queue, whether its runs have keys and workers few slots, and with which case it is compared."""

    limits: str = ""
    keyed: bool = False
    few: bool = False
    to: str = "no limit"


CASES: Mapping[str, Case] = {
    "no limit": Case(),
    "concurrency": Case("concurrency = 100000"),
    "rate": Case("rate = 10000000"),
    "keys in turn": Case(keyed=True),
    "key_concurrency": Case("key_concurrency = 100000", keyed=True),
    "all of them": Case("concurrency = 100000, key_concurrency = 100000, rate = 10000000", keyed=True),
    f"{BINDING} slots": Case(few=True, to=f"{BINDING} slots"),
    f"concurrency = {BINDING}": Case(f"concurrency = {BINDING}", to=f"{BINDING} slots"),
}

FILL = """insert into pgrun.jobs (kind, name, input, concurrency_key)
          select 'task', 'noop', jsonb_build_object('number', n), case when %(keys)s > 0 then 'key ' || n %% %(keys)s end
            from generate_series(1, %(runs)s) n"""
LEFT = "select count(*) from (select from pgrun.jobs where finished_at is null limit 1) one"
RATE = "select count(*) / extract(epoch from max(finished_at) - min(started_at))::float8 from pgrun.jobs"


def measure(on: str, case: Case, workers: int, options: Namespace) -> float:
    """Runs per second."""
    slots = BINDING // workers if case.few else options.concurrency
    with database(on) as url, psycopg.connect(url, autocommit=True) as conn, ExitStack() as stack:
        look = partial(_number, conn)
        conn.execute("select pgrun.pause_queue('default')")
        if case.limits:
            conn.execute(f"update pgrun.queues set {case.limits} where queue = 'default'".encode())
        conn.execute(FILL, {"runs": options.runs, "keys": options.keys if case.keyed else 0})
        settle(url)
        for _ in range(workers):
            stack.enter_context(worker(url, *TASKS, "--concurrency", str(slots)))
        await_workers(url, workers)
        conn.execute("select pgrun.resume_queue('default')")
        _wait(lambda: look(LEFT) == 0)
        return look(RATE)


def _number(conn: psycopg.Connection, query: str) -> float:
    row = conn.execute(query.encode()).fetchone()
    assert row
    return float(row[0])


def _wait(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.2)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--runs", type=int, default=20_000)
    made.add_argument("--workers", type=lambda text: [int(part) for part in text.split(",")], default=[1, 4])
    made.add_argument("--concurrency", type=int, default=200)
    made.add_argument("--keys", type=int, default=100)
    made.add_argument("--rounds", type=int, default=5)
    options = made.parse_args()
    cases = [(case, many) for many in options.workers for case in CASES]
    with server(options.database_url) as on:
        rounds = [
            {f"{case}, {many}": measure(on, CASES[case], many, options) for case, many in cases}
            for _ in range(options.rounds)
        ]
        found = medians(rounds)
        rows = {case: [cell for many in options.workers for cell in _cells(found, case, many)] for case in CASES}
        head = [cell for many in options.workers for cell in (f"{many} workers, runs/s", "ratio")]
        table(["limit", *head], rows)
        write(options.json, on, {"runs": options.runs, "keys": options.keys, "rounds": options.rounds, "cases": found})


def _cells(found: Mapping[str, float], case: str, workers: int) -> tuple[float, float]:
    rate = found[f"{case}, {workers}"]
    return rate, rate / found[f"{CASES[case].to}, {workers}"]


if __name__ == "__main__":
    main()
