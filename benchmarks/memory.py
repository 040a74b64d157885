"""How much memory runs and waiters take, and whether it grows with time.

    python benchmarks/memory.py [--counts 0,1000,5000,10000] [--minutes 0] [--rate 200] [--json FILE] [--database-url URL]

The resident memory of a worker process while so many of its runs sleep, and of a client process while so many of its calls
wait for their results; with the bytes that each further one takes, which are the same at every step if memory is linear. With
--minutes, half a one at least, also a worker process and a client process that calls it at a fixed rate for so long: both are
sampled every five seconds, and a line through the second half of the samples says how much they grow in an hour. Linux only.
"""

import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from multiprocessing.connection import Connection

import anyio
import psycopg
from _bench import TASKS, database, parser, server, worker
from _figures import table, write
from _load import called, calling
from _resident import resident
from _steady import keep_up

SETTLE = 3.0  # seconds until what a step has needed for a moment is free again
Sizes = Mapping[int, int]


def of_worker(on: str, counts: Sequence[int]) -> Sizes:
    """Bytes of a worker with so many sleeping runs, which all stay until the end."""
    found = {}
    with (
        database(on) as url,
        psycopg.connect(url, autocommit=True) as conn,
        worker(url, *TASKS, "--concurrency", str(max(counts) or 1), "--grace", "0") as process,
    ):
        anyio.run(_call_once, url)
        for before, count in pairwise([0, *counts]):
            conn.execute(
                "insert into pgrun.jobs (kind, name, input)"
                """ select 'task', 'nap', '{"seconds": 86400}' from generate_series(1, %s)""",
                [count - before],
            )
            while conn.execute("select count(*) from pgrun.jobs where status = 'running'").fetchone() != (count,):
                time.sleep(0.1)
            time.sleep(SETTLE)
            found[count] = resident(process.pid)
    return found


def of_client(on: str, counts: Sequence[int]) -> Sizes:
    """Bytes of a client with so many waiters, which all stay until the end."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    with database(on) as url, worker(url, *TASKS):
        client = multiprocessing.get_context("spawn").Process(target=_wait, args=[url, counts, sender])
        client.start()
        sender.close()  # or its end would not be noticed
        found = {count: receiver.recv() for count in counts}
        client.join()
    return found


def _wait(url: str, counts: Sequence[int], sender: Connection) -> None:
    anyio.run(_wait_for_many, url, counts, sender)


async def _call_once(url: str) -> None:
    async with calling(url) as task:
        await called(task)


async def _wait_for_many(url: str, counts: Sequence[int], sender: Connection) -> None:
    async with calling(url) as task, anyio.create_task_group() as waiters:
        await called(task)
        tomorrow = task.options(delay=86_400)
        for before, count in pairwise([0, *counts]):
            for run in await tomorrow.asubmit_many([{}] * (count - before)):
                waiters.start_soon(run.aresult)
            await anyio.sleep(SETTLE)
            sender.send(resident(os.getpid()))
        waiters.cancel_scope.cancel()


def steps(sizes: Sizes) -> dict[int, int]:
    """Bytes that each further one takes, from the count before to this one."""
    return {
        more: round((sizes[more] - sizes[fewer]) / (more - fewer)) for fewer, more in pairwise(sizes) if more > fewer
    }


def counts_of(text: str) -> list[int]:
    return sorted({0, *(int(part) for part in text.split(","))})


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--counts", type=counts_of, default=[0, 1000, 5000, 10_000])
    made.add_argument("--minutes", type=float, default=0.0)
    made.add_argument("--rate", type=float, default=200.0, help="calls per second")
    options = made.parse_args()
    if 0 < options.minutes < 0.5:
        made.error("--minutes: half a one at least, for the line goes through samples that are five seconds apart")
    with server(options.database_url) as on:
        found = {"sleeping runs": of_worker(on, options.counts), "waiters": of_client(on, options.counts)}
        rows = {
            f"{count:,} {what}": [size / 1e6, steps(sizes).get(count, "")]
            for what, sizes in found.items()
            for count, size in sizes.items()
        }
        table(["process with", "resident, MB", "bytes for each"], rows)
        figures = {what: {"resident bytes": sizes, "bytes for each": steps(sizes)} for what, sizes in found.items()}
        steady = keep_up(on, rate=options.rate, seconds=options.minutes * 60) if options.minutes else None
        if steady:
            growth = ", ".join(f"{who} {grown:+.2f}" for who, grown in steady["growth, MB per hour"].items())
            print(f"{options.minutes:g} minutes at {steady['calls per second']} calls/s; MB per hour: {growth}")
        write(options.json, on, {**figures, "steady": steady})


if __name__ == "__main__":
    main()
