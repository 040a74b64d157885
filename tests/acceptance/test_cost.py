"""What pgrun costs the database: when nothing happens, and per run; counted by the server itself.

A backend reports for certain only when it ends. So each figure is the difference of two rounds that are alike but for what
is measured, each counted when all its connections are closed.
"""

import logging

import anyio
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from support.until import until

from pgrun import Agent, OpenAIResponses, PostgresDb, Worker
from pgrun.db.embedded import EmbeddedPostgres
from pgrun.testing import ModelServer, hang

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

_log = logging.getLogger(__name__)


class Round:
    """A worker and an agent with the settings that users have, from start to end, and what they cost."""

    def __init__(self, server: str, dsn: str, models: ModelServer) -> None:
        self._dbname = conninfo_to_dict(dsn)["dbname"]
        self._server = server
        self.db = PostgresDb(dsn, worker="external")
        self.agent = Agent(
            name="Costs", model=OpenAIResponses("m", base_url=models.base_url, api_key="test"), db=self.db
        )

    async def idle(self, seconds: float) -> int:
        """Transactions while a worker holds a run, a caller waits for it, and nothing happens."""
        before = await self._transactions()
        async with self.db, Worker(self.db, grace=0), anyio.create_task_group() as tasks:
            run = await self.agent.arun("?", background=True)
            tasks.start_soon(run.aresult)
            await anyio.sleep(seconds)
            await self.agent.acancel_run(run.run_id)  # or the next round would begin with it
            tasks.cancel_scope.cancel()
        return await self._transactions() - before

    async def busy(self, runs: int) -> int:
        """Transactions for so many runs, one after the other, each awaited."""
        before = await self._transactions()
        async with self.db, Worker(self.db):
            for _ in range(runs):
                await (await self.agent.arun("?", background=True)).aresult(timeout=10)
        return await self._transactions() - before

    async def _transactions(self) -> int:
        with psycopg.connect(self._server, autocommit=True) as conn:
            query = "select count(*) from pg_stat_activity where datname = %s"
            await until(lambda: conn.execute(query, [self._dbname]).fetchone() == (0,))
            query = "select xact_commit + xact_rollback from pg_stat_database where datname = %s"
            row = conn.execute(query, [self._dbname]).fetchone()
        assert row is not None
        return int(row[0])


async def test_an_idle_worker_and_an_idle_waiter_make_at_most_one_statement_a_second_each(
    own_server: EmbeddedPostgres, own_dsn: str, models: ModelServer
) -> None:
    models.always(hang())
    cost = Round(own_server.conninfo, own_dsn, models)
    short, long = await cost.idle(1), await cost.idle(21)
    rate = (long - short) / 20
    _log.warning("idle worker and idle waiter together: %.2f transactions a second", rate)
    assert rate <= 1.0  # for both; 2 would be allowed


async def test_a_run_costs_few_transactions(own_server: EmbeddedPostgres, own_dsn: str, models: ModelServer) -> None:
    cost = Round(own_server.conninfo, own_dsn, models)
    few, many = await cost.busy(50), await cost.busy(250)
    per_run = (many - few) / 200
    _log.warning("one after the other, each awaited: %.2f transactions a run", per_run)
    # Four statements: submit, claim, finish, and the waiter's look at what has ended. Two more are no statements: the server
    # counts each notification that it hands to the listener, of the wake-up and of the end.
    assert per_run <= 6.3
