"""Dozens of clients submit at once: what NOTIFY costs them, and what is left of it while a worker is awake.

    python benchmarks/notify_contention.py [--clients 32] [--seconds 4] [--rounds 3] [--json FILE] [--database-url URL]

A commit that notifies takes a lock for the whole server, so such commits queue up behind each other's fsync. Measured are
single-row transactions of so many clients, each a connection in one of two processes: a plain insert into a table alike but
without triggers; the same with a pg_notify; pgrun's own statement while every worker sleeps, and while one says that it is
awake; and as many callers of `asubmit` in the two processes, where calls that come together share a transaction. The worker is
a row in the table of workers and no process: measured is the submitting side alone.
"""

import multiprocessing
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial

import anyio
import psycopg
from _bench import database, parser, server
from _figures import medians, table, write
from _load import calling
from _statements import CALL, SUBMIT_CALL, register

from pgrun._ids import new_run_id

PROCESSES = 2
PLAIN = b"insert into public.plain (run_id, kind, name, input) values (%(run_id)s, 'task', 'noop', '1')"
NOTIFYING = b"with i as (%b returning run_id) select pg_notify('plain', '') from i" % PLAIN
Submit = Callable[[], Awaitable[object]]
Submitting = Callable[[], AbstractAsyncContextManager[Submit]]


@asynccontextmanager
async def statements(url: str, query: bytes) -> AsyncIterator[Submit]:
    """A connection that submits one run at a time."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=0) as conn:
        yield lambda: conn.execute(query, {**CALL, "run_id": new_run_id(), "input": "1"})


def clients(url: str, query: bytes, many: int, seconds: float) -> int:
    """How many rows so many connections of one process have committed."""
    return anyio.run(_count, [partial(statements, url, query)] * many, seconds)


def callers(url: str, many: int, seconds: float) -> int:
    """How many calls so many callers in one process have submitted."""
    return anyio.run(_count_calls, url, many, seconds)


async def _count_calls(url: str, many: int, seconds: float) -> int:
    async with calling(url) as task:
        return await _count([lambda: nullcontext(task.asubmit)] * many, seconds)


async def _count(submitting: Sequence[Submitting], seconds: float) -> int:
    count = 0
    until = time.monotonic() + seconds

    async def one(submitting: Submitting) -> None:
        nonlocal count
        async with submitting() as submit:
            while time.monotonic() < until:
                await submit()
                count += 1

    async with anyio.create_task_group() as tasks:
        for each in submitting:
            tasks.start_soon(one, each)
    return count


def one_round(pool: "multiprocessing.pool.Pool", on: str, many: int, seconds: float) -> dict[str, float]:
    """Each case once, in one new database."""
    with (
        database(on) as url,
        psycopg.connect(url, autocommit=True) as conn,
        psycopg.connect(url, autocommit=True) as ear,
    ):
        conn.execute("create table public.plain (like pgrun.jobs including all)")
        ear.execute("listen plain; listen pgrun_wake")

        def rate(share: Callable[..., int], *query: bytes) -> float:
            given = [(url, *query, many // PROCESSES, seconds)] * PROCESSES
            return sum(pool.starmap(share, given)) / seconds

        found = {
            "plain insert": rate(clients, PLAIN),
            "plain insert with pg_notify": rate(clients, NOTIFYING),
            "statement, all asleep": rate(clients, SUBMIT_CALL),
            "asubmit, all asleep": rate(callers),
        }
        register(url, awake=True)
        found["statement, one awake"] = rate(clients, SUBMIT_CALL)
        found["asubmit, one awake"] = rate(callers)
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
        table(["submits per second", "rate", "to plain"], rows)
        write(options.json, on, {"clients": options.clients, "rounds": options.rounds, "submits per second": found})


if __name__ == "__main__":
    main()
