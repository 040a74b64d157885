"""What pgrun costs the database: when nothing happens, and per run; counted by the server itself."""

import logging
import re

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

    def __init__(self, server: EmbeddedPostgres, dsn: str, models: ModelServer) -> None:
        self._dbname = str(conninfo_to_dict(dsn)["dbname"])
        self._server = server.conninfo
        self._log = server.directory / "server.log"
        self.db = PostgresDb(dsn, worker="external")
        self.agent = Agent(
            name="Costs", model=OpenAIResponses("m", base_url=models.base_url, api_key="test"), db=self.db
        )

    async def idle(self, seconds: float) -> list[str]:
        """The statements while a worker holds a run, a caller waits for it, and nothing happens."""
        with psycopg.connect(self._server, autocommit=True) as conn:
            conn.execute(f"alter database {self._dbname} set log_statement = 'all'")
        async with self.db, Worker(self.db, grace=0), anyio.create_task_group() as tasks:
            tasks.start_soon((await self.agent.arun("?", background=True)).aresult)
            await anyio.sleep(1)
            before = len(self._log.read_bytes())
            await anyio.sleep(seconds)
            logged = self._log.read_bytes()[before:].decode()
            tasks.cancel_scope.cancel()
        return re.findall(r"LOG:  (?:statement|execute [^:]*): (.*)", logged)

    async def busy(self, runs: int) -> int:
        """Transactions for so many runs, one after the other, each awaited, with those of the start and of the end.

        A backend reports for certain only when it ends: they are counted when all connections are closed.
        """
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
            if conn.info.server_version < 150000:
                await anyio.sleep(2)  # there a collector writes down what it has been told, every half second
            row = conn.execute(query, [self._dbname]).fetchone()
        assert row is not None
        return int(row[0])


async def test_an_idle_worker_and_an_idle_waiter_make_at_most_one_statement_a_second_each(
    own_server: EmbeddedPostgres, own_dsn: str, models: ModelServer
) -> None:
    models.always(hang())
    statements = await Round(own_server, own_dsn, models).idle(30)
    rate = len(statements) / 30
    _log.warning("idle worker and idle waiter together: %.2f statements a second", rate)
    assert any("claim_runs" in statement for statement in statements)  # the log is the right one
    assert rate <= 1.0, statements  # for both; 2 would be allowed


async def test_a_run_costs_few_transactions(own_server: EmbeddedPostgres, own_dsn: str, models: ModelServer) -> None:
    per_run = await _transactions_a_run(Round(own_server, own_dsn, models))
    # Four statements: submit, claim, finish, and the waiter's look at what has ended. Two more are no statements: the server
    # counts each notification that it hands to the listener, of the wake-up and of the end.
    assert per_run <= 6.3


async def test_background_mode_costs_one_transaction_more_for_each_call(
    own_server: EmbeddedPostgres, own_dsn: str, provider: ModelServer
) -> None:
    per_run = await _transactions_a_run(Round(own_server, own_dsn, provider))
    assert len(provider.calls) == 150
    # The note of the provider's id.
    assert 6.7 <= per_run <= 7.3


async def _transactions_a_run(cost: Round) -> float:
    few, many = await cost.busy(25), await cost.busy(125)
    per_run = (many - few) / 100
    _log.warning("one after the other, each awaited: %.2f transactions a run", per_run)
    return per_run
