"""Dozens of clients submit at once: what NOTIFY costs them, and what is left of it while a worker is awake.

    python benchmarks/notify_contention.py [--clients 32] [--seconds 4] [--rounds 3] [--json FILE] [--database-url URL]

A commit that notifies takes a lock for the whole server, so such commits queue up behind each other's fsync. Measured are
single-row transactions of so many clients, each a connection in one of two processes: a plain insert into a table alike but
without triggers; the same with a pg_notify; submits by pgrun's own statement while every worker sleeps; and while one says
that it is awake. That one is a row in the table of workers and no process: measured is the submitting side alone.
"""

import multiprocessing
import time
from functools import partial
from uuid import uuid4

import anyio
import psycopg
from _bench import database, parser, server
from _figures import medians, table, write

from pgrun._ids import new_run_id
from pgrun.db.statements import statement

PROCESSES = 2
PLAIN = "insert into public.plain (run_id, kind, name, input) values (%(run_id)s, 'task', 'noop', '1')"
NOTIFYING = f"with i as ({PLAIN} returning run_id) select pg_notify('plain', '') from i"
NOTHING = dict.fromkeys(("session_id", "session_table", "parent_run_id", "definition", "output_schema", "content_type"))
COLUMNS = {
    "kind": "task",
    "name": "noop",
    "queue": "default",
    "priority": 0,
    "delay": 0,
    "max_attempts": 5,
    "input": "1",
}


async def submit_forever(url: str, query: str, until: float) -> int:
    """How many rows one client has committed."""
    count = 0
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=0) as conn:
        while time.monotonic() < until:
            await conn.execute(query.encode(), {**NOTHING, **COLUMNS, "metadata": "{}", "run_id": new_run_id()})
            count += 1
    return count


def clients(url: str, query: str, many: int, seconds: float) -> int:
    """How many rows so many clients of one process have committed."""
    counts: list[int] = []

    async def one(until: float) -> None:
        counts.append(await submit_forever(url, query, until))

    async def all_of_them() -> None:
        until = time.monotonic() + seconds
        async with anyio.create_task_group() as tasks:
            for _ in range(many):
                tasks.start_soon(one, until)

    anyio.run(all_of_them)
    return sum(counts)


def rate(pool: "multiprocessing.pool.Pool", url: str, query: str, many: int, seconds: float) -> float:
    """Commits per second of so many clients."""
    share = partial(clients, url, query, many // PROCESSES)
    return sum(pool.map(share, [seconds] * PROCESSES)) / seconds


def one_round(pool: "multiprocessing.pool.Pool", on: str, many: int, seconds: float) -> dict[str, float]:
    """Each case once, in one new database."""
    with (
        database(on) as url,
        psycopg.connect(url, autocommit=True) as conn,
        psycopg.connect(url, autocommit=True) as ear,
    ):
        conn.execute("create table public.plain (like pgrun.jobs including all)")
        ear.execute("listen plain; listen pgrun_wake")
        submit = statement("submit_run", "pgrun")
        found = {
            "plain insert": rate(pool, url, PLAIN, many, seconds),
            "with pg_notify": rate(pool, url, NOTIFYING, many, seconds),
            "pgrun, all asleep": rate(pool, url, submit, many, seconds),
        }
        conn.execute(
            "insert into pgrun.workers (worker_id, mode, host, pid, version, queues, names, concurrency, lease, lease_until,"
            " awake_until) values (%s, 'daemon', 'here', 1, '0', '{default}', '{noop}', 1, '1 h', now() + interval '1 h',"
            " now() + interval '1 h')",
            [uuid4()],
        )
        found["pgrun, one awake"] = rate(pool, url, submit, many, seconds)
    return found


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--clients", type=int, default=32)
    made.add_argument("--seconds", type=float, default=4.0)
    made.add_argument("--rounds", type=int, default=3)
    options = made.parse_args()
    with server(options.database_url) as on, multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        found = medians([one_round(pool, on, options.clients, options.seconds) for _ in range(options.rounds)])
        plain = found["plain insert"]
        rows = {name: [figure, figure / plain] for name, figure in found.items()}
        table(["commits per second", "rate", "to plain"], rows)
        write(options.json, on, {"clients": options.clients, "rounds": options.rounds, "commits per second": found})


if __name__ == "__main__":
    main()
