"""The steps of a task survive its worker: killed, or unsure whether they were written."""

from pathlib import Path
from typing import Any

import pytest
from support.database import Conn
from support.journey_task import declare
from support.netfault import Proxy
from support.processes import Processes
from support.settings import FAST
from support.tables import one
from support.until import until

from pgrun import PostgresDb, RetryPolicy, TaskContext, Worker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

WORKER = ("--import", "support.journey_task")


async def test_a_killed_workers_steps_are_not_taken_again(
    db: PostgresDb, conn: Conn, processes: Processes, tmp_path: Path
) -> None:
    first = processes.worker(*WORKER, lease=2)
    await first.ready()
    run = await declare(db).asubmit(str(tmp_path / "notes"))
    await until(lambda: one(conn, "select count(*) from pgrun.steps") == 1)
    first.kill()
    processes.worker(*WORKER, lease=2)
    assert await run.aresult(timeout=20) == ["one", "two"]
    assert one(conn, "select array_agg(name order by step) from pgrun.steps") == ["note", "sleep", "note#2", "read"]
    assert one(conn, "select array_agg(outcome) from pgrun.attempts") == ["lost"]


@pytest.mark.parametrize("lost", ["record_step", "record_sleep", "get_task_run", "write_progress"])
async def test_a_statement_whose_answer_is_lost_counts_once(proxy: Proxy, conn: Conn, lost: str) -> None:
    calls: list[str] = []
    async with PostgresDb(proxy.conninfo, worker="external", settings=FAST) as db:

        @db.task(retry=RetryPolicy(max_attempts=1))
        async def work(ctx: TaskContext) -> Any:
            ctx.progress(0.5)
            await ctx.sleep(0.01)
            return await ctx.step("look", lambda: calls.append("looked"))

        async with Worker(db):
            proxy.lose_answer(lost, lost)
            run = await work.asubmit()
            await run.aresult(timeout=20)
    assert {*proxy.lost} == {lost}
    assert calls == ["looked"]
    assert one(conn, "select array_agg(kind order by step) from pgrun.steps") == ["sleep", "step"]
    assert one(conn, "select progress ->> 'fraction' from pgrun.jobs") == "0.5"
