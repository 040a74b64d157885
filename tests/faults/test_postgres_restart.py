"""Postgres goes away and comes back, in order or by a crash: what was submitted is done, once, and nobody hangs."""

from collections import Counter
from collections.abc import Iterator
from typing import Literal

import anyio
import anyio.to_thread
import psycopg
import pytest
from support.agents import answering_agent
from support.database import Conn
from support.processes import Processes
from support.rows import rows_of
from support.settings import FAST
from support.until import Heard, until

from pgrun import PostgresDb, Worker
from pgrun.db.embedded import EmbeddedPostgres
from pgrun.testing import ModelServer, hang, reply

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

Mode = Literal["fast", "immediate"]
both_modes = pytest.mark.parametrize("mode", ["fast", "immediate"])


@pytest.fixture
def own_processes(own_dsn: str, models: ModelServer) -> Iterator[Processes]:
    with Processes(own_dsn, models.environ) as started:
        yield started


@both_modes
async def test_runs_that_wait_run_and_are_awaited_all_end_after_a_restart(
    mode: Mode, own_server: EmbeddedPostgres, own_dsn: str, models: ModelServer, own_processes: Processes, heard: Heard
) -> None:
    models.script(hang(), hang())
    worker = own_processes.worker("--concurrency", "2")
    await worker.ready()
    async with PostgresDb(own_dsn, worker="external", settings=FAST) as db, anyio.create_task_group() as waiters:
        agent = answering_agent(db, models)
        runs = [await agent.arun(text, background=True) for text in ("running", "running too", "pending")]
        run_ids = [run.run_id for run in runs]
        await models.await_for_calls(2)
        results: list[str] = []

        async def await_result(number: int) -> None:
            results.append(await runs[number].aresult(timeout=20))

        for number in range(3):
            waiters.start_soon(await_result, number)
        waiting = own_processes.pgrun("wait", *run_ids)
        await until(lambda: _listeners(own_dsn) == 3, shown="three processes listen")

        await _restart(own_server, mode)
        await until(lambda: _listeners(own_dsn) == 3, shown="they listen again")
        assert [row["status"] for row in _rows(own_dsn, run_ids)] == ["running", "running", "pending"]
        assert not results
        models.release()

        assert await waiting.ends(within=20) == 0
        await until(lambda: len(results) == 3)
    assert Counter(call.text for call in models.calls) == Counter(("running", "running too", "pending"))
    assert [(row["status"], row["attempt"]) for row in _rows(own_dsn, run_ids)] == [("completed", 1)] * 3
    assert [name for name, _ in heard if name.endswith("listening")][:3] == ["listening", "not_listening", "listening"]


@both_modes
async def test_under_load_no_run_is_lost_or_repeated_over_two_restarts(
    mode: Mode, own_server: EmbeddedPostgres, own_dsn: str, models: ModelServer
) -> None:
    models.always(reply("fine", delay=0.05))
    async with PostgresDb(own_dsn, worker="external", settings=FAST) as db:
        agent = answering_agent(db, models)
        runs = [await agent.arun(f"run {number}", background=True) for number in range(200)]
        async with Worker(db, concurrency=5, grace=5):
            for calls in (40, 100):
                await models.await_for_calls(calls)
                await _restart(own_server, mode)
            ended = await db.await_runs([run.run_id for run in runs], timeout=30)
    assert [(run.status, run.attempt) for run in ended] == [("completed", 1)] * 200
    assert Counter(call.text for call in models.calls) == Counter(f"run {number}" for number in range(200))


@both_modes
async def test_every_submit_that_returned_during_restarts_is_there_once(
    mode: Mode, own_server: EmbeddedPostgres, own_dsn: str, models: ModelServer
) -> None:
    submitted: dict[str, str] = {}
    over = anyio.Event()
    async with PostgresDb(own_dsn, worker="external", settings=FAST) as db:
        agent = answering_agent(db, models)

        async def submit_forever(task: int) -> None:
            while not over.is_set():
                text = f"task {task} number {len(submitted)}"
                submitted[(await agent.arun(text, background=True)).run_id] = text

        async with anyio.create_task_group() as submitters:
            for task in range(6):
                submitters.start_soon(submit_forever, task)
            for restart in range(1, 4):
                await until(lambda: len(submitted) > restart * 100)  # noqa: B023  it is over within the round
                await _restart(own_server, mode)
            over.set()
    with psycopg.connect(own_dsn) as conn:
        rows = conn.execute("select run_id::text, input #>> '{}' from pgrun.jobs").fetchall()
    assert dict(rows) == submitted
    assert len(rows) == len(set(submitted.values()))


async def _restart(server: EmbeddedPostgres, mode: Mode) -> None:
    await anyio.to_thread.run_sync(server.restart, mode)


def _listeners(dsn: str) -> int:
    with psycopg.connect(dsn) as conn:
        row = conn.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and query like 'listen%'"
        ).fetchone()
    return row[0] if row else 0


def _rows(dsn: str, run_ids: list[str]) -> list[dict[str, object]]:
    conn: Conn
    with psycopg.connect(dsn, row_factory=psycopg.rows.dict_row) as conn:
        return rows_of(conn, run_ids)
