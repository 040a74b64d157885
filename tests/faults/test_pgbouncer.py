"""A pooler in transaction mode stands before Postgres: everything works by polling, and by notification with a direct address."""

import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import anyio
import psycopg
import pytest
from support.agents import answering_agent
from support.pgbouncer import BINARY, pgbouncer
from support.processes import Processes
from support.settings import FAST
from support.until import Heard, until, until_heard

from pgrun import Agent, PostgresDb, RunOutput, Settings, Worker
from pgrun.testing import ModelServer, reply

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        BINARY is None, reason="PgBouncer is not installed (Debian and Ubuntu: apt-get install pgbouncer)"
    ),
]

POLLS = Settings(lease=FAST.lease)  # with the interval that users have
NEVER_POLLS = replace(FAST, poll_interval=60.0, poll_interval_without_listen=60.0)
WARNING = "LISTEN does not work through"


@pytest.fixture
async def pooled(dsn: str) -> AsyncIterator[str]:
    """Conninfo of a database through a pooler in transaction mode."""
    async with pgbouncer(dsn) as conninfo:
        yield conninfo


async def test_hundreds_of_runs_pass_through_a_pooler_without_an_error_and_with_one_warning(
    pooled: str, models: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    models.delay = 0.01
    answered: list[str] = []

    async def ask(agent: Agent[str], number: int) -> None:
        run = await agent.arun(f"run {number}", background=True)
        answered.append(await run.aresult(timeout=15))

    async with PostgresDb(pooled, worker="external", settings=POLLS) as db, Worker(db, concurrency=30):
        agent = answering_agent(db, models)
        async with anyio.create_task_group() as callers:
            for number in range(300):
                callers.start_soon(ask, agent, number)
        await until(lambda: WARNING in caplog.text)
    assert len(answered) == len(models.calls) == 300
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    about_the_pooler = [
        warning for warning in warnings if "the event loop" not in warning
    ]  # a busy machine is another matter
    assert [WARNING in warning for warning in about_the_pooler] == [True]
    assert "listen_url=" in caplog.text


async def test_through_a_pooler_runs_and_results_are_found_within_a_second(
    pooled: str, dsn: str, models: ModelServer
) -> None:
    async with PostgresDb(pooled, worker="external", settings=POLLS) as db, Worker(db):
        agent = answering_agent(db, models)
        for number in range(3):
            run = await agent.arun(f"run {number}", background=True)
            await run.aresult(timeout=10)
            with psycopg.connect(dsn) as direct:
                row = direct.execute(
                    "select started_at - created_at, clock_timestamp() - finished_at from pgrun.jobs where run_id = %s",
                    [run.run_id],
                ).fetchone()
            assert row
            assert [seconds for seconds in row if seconds.total_seconds() > 1] == []


async def test_with_a_direct_address_to_listen_on_results_arrive_by_notification(
    pooled: str, dsn: str, models: ModelServer, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    async with PostgresDb(pooled, worker="external", listen_url=dsn, settings=NEVER_POLLS) as db, Worker(db):
        agent = answering_agent(db, models)
        await until_heard(heard, "listening")
        for number in range(20):
            run: RunOutput[str] = await agent.arun(f"run {number}", background=True)
            await run.aresult(timeout=5)
    assert WARNING not in caplog.text


async def test_a_worker_process_behind_a_pooler_serves_clients_that_are_not(
    pooled: str, dsn: str, models: ModelServer, processes: Processes
) -> None:
    models.always(reply("fine", delay=0.01))
    worker = processes.worker("--listen-url", dsn, dsn=pooled)
    await worker.ready()
    async with PostgresDb(dsn, worker="external", settings=FAST) as db:
        agent = answering_agent(db, models)
        runs = [await agent.arun(f"run {number}", background=True) for number in range(50)]
        ended = await db.await_runs([run.run_id for run in runs], timeout=15)
    assert {(run.status, run.attempt) for run in ended} == {("completed", 1)}
    assert "WARNING" not in worker.output


async def test_the_schema_is_created_through_a_pooler(new_database: Callable[..., str], models: ModelServer) -> None:
    async with (
        pgbouncer(new_database()) as pooled,
        PostgresDb(pooled, worker="external", settings=POLLS) as db,
        Worker(db),
    ):
        assert (await answering_agent(db, models).arun("first")).content
