"""Schedules while worker processes are killed: exactly one run for each tick, and none is left out."""

import random
from datetime import timedelta

import anyio
import pytest
from support.database import Conn
from support.processes import Processes, WorkerProcess
from support.tables import one
from support.until import until

EVERY = timedelta(seconds=0.1)
IMPORTS = ("--import", "support.scheduled_tasks")


def fired(conn: Conn) -> int:
    return int(one(conn, "select count(*) from pgrun.jobs"))


async def check(conn: Conn) -> None:
    """From the first tick to the last each has its run, and each completes."""
    conn.execute("select pgrun.pause_schedule('tick')")
    await until(lambda: not one(conn, "select count(*) from pgrun.jobs where finished_at is null"), within=15)
    # A run that was taken over is due anew; its tick stays.
    query = "select (metadata ->> 'tick')::timestamptz as tick from pgrun.jobs order by tick"
    ticks = [row["tick"] for row in conn.execute(query).fetchall()]
    assert ticks == [ticks[0] + n * EVERY for n in range(len(ticks))]
    assert one(conn, "select array_agg(distinct status) from pgrun.jobs") == ["completed"]


@pytest.mark.slow
async def test_two_workers_of_which_one_is_killed_fire_each_tick_once(processes: Processes, conn: Conn) -> None:
    workers = [processes.worker(*IMPORTS, lease=0.5) for _ in range(2)]
    for worker in workers:
        await worker.ready()
    await until(lambda: fired(conn) >= 3)
    workers[0].kill()
    there = fired(conn)
    await until(lambda: fired(conn) >= there + 7)
    await check(conn)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_a_thousand_ticks_while_workers_come_and_are_killed(processes: Processes, conn: Conn) -> None:
    dice = random.Random(7)
    workers: list[WorkerProcess] = [processes.worker(*IMPORTS, lease=1.0) for _ in range(6)]
    for worker in workers:
        await worker.ready()
    while fired(conn) < 1000:
        await anyio.sleep(dice.uniform(0.2, 2))
        killed = workers.pop(dice.randrange(len(workers)))
        killed.kill()
        if len(workers) < 3 or dice.random() < 0.5:
            workers.append(processes.worker(*IMPORTS, lease=1.0))
    if not any(worker.says_more for worker in workers):
        workers.append(processes.worker(*IMPORTS, lease=1.0))
    await check(conn)
