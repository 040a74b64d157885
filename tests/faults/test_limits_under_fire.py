"""Limits of queues while workers are killed and started and the limits change: at no instant more runs run than may.

An observer counts rows in one snapshot after another, and the runs count each other by locks that they hold.
"""

import random
import signal
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import anyio
import psycopg
import pytest
from psycopg.rows import dict_row
from support.database import Conn
from support.limited_tasks import SEEN, declare
from support.processes import Processes
from support.tables import one
from support.until import until

from pgrun import PostgresDb

pytestmark = pytest.mark.slow

KEYS = 4
ALL = 0  # where the count of the whole queue is kept beside those of the keys, which begin at 1
LOOK = """
select q.concurrency, q.key_concurrency,
       array(select concurrency_key::int from pgrun.jobs where status = 'running' and queue = q.queue) as running
  from pgrun.queues q where q.queue = 'default'
"""


class Observer:
    """Counts what runs again and again; after a limit was lowered, the number may only fall until it is reached.

    Attributes:
        looks: How often it has looked.
        most: The largest count of the queue.
        broken: What was not allowed.
    """

    def __init__(self, dsn: str, *, changes: bool) -> None:
        self._dsn = dsn
        self._changes = changes
        self._allowed: dict[int, int] = defaultdict(int)
        self.looks = self.most = 0
        self.broken = list[str]()

    @contextmanager
    def watching(self) -> Iterator["Observer"]:
        """Looks until the block ends."""
        enough = Event()
        thread = Thread(target=self._look_until, args=[enough], name="observer")
        thread.start()
        try:
            yield self
        finally:
            enough.set()
            thread.join()

    def _look_until(self, enough: Event) -> None:
        with psycopg.connect(self._dsn, autocommit=True, row_factory=dict_row) as conn:
            while not enough.is_set():
                self._look(conn)
                if self._changes and self.looks % 100 == 0:
                    conn.execute(
                        "update pgrun.queues set concurrency = %s, key_concurrency = %s where queue = 'default'",
                        [random.choice([3, 5, 8]), random.choice([1, 2, 3])],
                    )

    def _look(self, conn: Conn) -> None:
        (row,) = conn.execute(LOOK).fetchall()
        running = row["running"]
        for of in range(KEYS + 1):
            count = len(running) if of == ALL else running.count(of)
            limit = row["concurrency" if of == ALL else "key_concurrency"]
            self._allowed[of] = max(limit, self._allowed[of])
            if count > self._allowed[of]:
                self.broken.append(f"look {self.looks}: {count} run where {self._allowed[of]} may ({of or 'all'})")
            self._allowed[of] = max(limit, min(count, self._allowed[of]))
        self.looks += 1
        self.most = max(self.most, len(running))


@pytest.mark.timeout(60)
async def test_no_limit_is_exceeded_when_a_worker_is_killed(
    db: PostgresDb, dsn: str, conn: Conn, processes: Processes
) -> None:
    observer = await fire(db, dsn, conn, processes, runs=60, workers=2, changes=False)
    assert observer.most == 5
    assert one(conn, "select max(of_all) from public.seen") <= 5
    assert one(conn, "select max(of_key) from public.seen") <= 2


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("changes", [False, True])
async def test_no_limit_is_exceeded_while_workers_are_killed_and_limits_changed(
    db: PostgresDb, dsn: str, conn: Conn, processes: Processes, changes: bool
) -> None:
    observer = await fire(db, dsn, conn, processes, runs=2000, workers=5, changes=changes)
    assert observer.looks > 1000
    assert one(conn, "select count(*) from public.seen") >= 2000
    assert one(conn, "select sum(fence) from pgrun.jobs") > 2000
    assert one(conn, "select max(of_all) from public.seen") <= (8 if changes else 5)
    assert one(conn, "select max(of_key) from public.seen") <= (3 if changes else 2)


async def fire(
    db: PostgresDb, dsn: str, conn: Conn, processes: Processes, *, runs: int, workers: int, changes: bool
) -> Observer:
    """Lets so many workers execute so many runs, and kills or stops one after the other until all have ended."""
    conn.execute(SEEN.encode())
    await db.aset_queue("default", concurrency=5, key_concurrency=2)
    occupy = declare(db)
    options = ("--import", "support.limited_tasks", "--concurrency", "10", "--grace", "0.1")
    crew = [processes.worker(*options, lease=1) for _ in range(workers)]
    for key in range(1, KEYS + 1):
        keyed = occupy.options(concurrency_key=str(key))
        await keyed.asubmit_many([{"key": key}] * (runs // KEYS))

    def ended() -> bool:
        return bool(one(conn, "select count(*) = 0 from pgrun.jobs where finished_at is null"))

    with Observer(dsn, changes=changes).watching() as observer:
        await until(lambda: one(conn, "select count(*) from public.seen") > runs // 10, within=30)
        while not ended():
            victim = crew.pop(0)
            if random.random() < 0.7:
                victim.kill()
            else:
                victim.send(signal.SIGTERM)
            crew.append(processes.worker(*options, lease=1))
            with anyio.move_on_after(random.uniform(0.3, 1.5)):
                await until(ended, within=60)
    assert observer.broken == []
    assert one(conn, "select array_agg(distinct status) from pgrun.jobs") == ["completed"]
    return observer
