"""What a worker is given: thousands of no-op runs that it drains, or single calls one after the other."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import psycopg
from _tasks import noop, stamp, starts

from pgrun import PostgresDb, Task, Worker

WARM = 10
"""Calls before the first that counts."""

_CHUNK = 1000  # rows per statement
_FILL = """insert into pgrun.jobs (kind, name, queue, priority, input)
           select 'task', 'noop', (%(queues)s::text[])[1 + n %% cardinality(%(queues)s::text[])],
                  (%(priorities)s::smallint[])[1 + n %% cardinality(%(priorities)s::smallint[])],
                  jsonb_build_object('number', n, 'text', repeat(md5(n::text), 5))
             from generate_series(%(first)s::bigint, %(last)s) n"""


@dataclass(frozen=True)
class Drained:
    """A drain: when each run started, in this order, and when the worker began and had written the last result."""

    started: Sequence[float]
    began: float
    ended: float

    @property
    def rate(self) -> float:
        """Runs per second."""
        return len(self.started) / (self.ended - self.began)


def fill(url: str, runs: int, *, queues: Sequence[str] = ("default",), priorities: Sequence[int] = (0,)) -> None:
    """Submits so many no-ops, spread evenly over queues and priorities, a thousand in a transaction.

    Their inputs are as long as those of a `Backlog`: after a vacuum, smaller rows would go into the gaps that larger ones
    have left, one to a page, and the log would take each of these pages whole.
    """
    given = {"queues": list(queues), "priorities": list(priorities)}
    with psycopg.connect(url, autocommit=True) as conn:
        for first in range(0, runs, _CHUNK):
            conn.execute(_FILL, {**given, "first": first, "last": min(first + _CHUNK, runs) - 1})


async def drain(url: str, runs: int, *, concurrency: int, queues: Sequence[str] = ("default",)) -> Drained:
    """One worker in this process executes no-ops until it has started so many, and finishes all that it has claimed."""
    starts.clear()
    async with PostgresDb(url, worker="external") as db:
        db.task(noop)
        began = time.monotonic()
        async with Worker(db, queues=queues, concurrency=concurrency) as worker:
            while len(starts) < runs:  # noqa: ASYNC110  a look costs nothing here
                await anyio.sleep(0.002)
            await worker.drain()
            ended = time.monotonic()
    return Drained(list(starts), began, ended)


@asynccontextmanager
async def calling(url: str) -> AsyncIterator[Task[[], float]]:
    """A task for `called`, which a worker elsewhere executes."""
    async with PostgresDb(url, worker="external") as db:
        yield db.task(stamp)


async def called(task: Task[[], float]) -> tuple[float, float]:
    """Calls it and awaits the result: seconds from the submit until it started, and until the result was here."""
    submitted = time.monotonic()
    started = await (await task.asubmit()).aresult(timeout=60)
    return started - submitted, time.monotonic() - submitted


async def latency(
    url: str, calls: int, *, pause: float, queues: Sequence[str] = ("default",), priorities: Sequence[int] = (0,)
) -> list[float]:
    """Seconds from submit to start of single calls, going round the queues and priorities.

    One is made every `pause` seconds, whether the one before has ended or not: else each would begin right after the worker
    has looked, and those that have to wait for its next look would all wait for the whole of its interval.
    """
    samples: list[float] = []

    async def sample(number: int) -> None:
        chosen = task.options(queue=queues[number % len(queues)], priority=priorities[number % len(priorities)])
        until_start, _ = await called(chosen)
        samples.append(until_start)

    async with calling(url) as task:
        for number in range(WARM):
            await sample(number)
        samples.clear()
        async with anyio.create_task_group() as open_calls:
            for number in range(calls):
                open_calls.start_soon(sample, number)
                await anyio.sleep(pause)
    return samples
