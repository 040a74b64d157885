"""Runs of many turns with a long history: each turn writes what is new, and whoever goes on begins at the last of them."""

from itertools import pairwise
from typing import Any

import psycopg
import pytest
from support.answering import USED, agent_at, until_noted
from support.database import Conn
from support.settings import FAST
from support.tables import one
from support.until import until

from pgrun import PostgresDb, Worker, tool
from pgrun.db.embedded import EmbeddedPostgres
from pgrun.testing import ModelServer, hang, reply, tool_call
from pgrun.testing.answers import Answer


@pytest.mark.slow
@pytest.mark.timeout(90)
@pytest.mark.parametrize("turns", [33, pytest.param(99, marks=pytest.mark.soak)])
async def test_a_long_run_writes_what_is_new_and_goes_on_from_its_last_step(
    own_server: EmbeddedPostgres, own_dsn: str, provider: ModelServer, turns: int
) -> None:
    """Up to a hundred turns with a history of 200 kB; on a server where nobody else writes."""
    async with PostgresDb(own_dsn, worker="external", settings=FAST) as db:
        with psycopg.connect(own_dsn, autocommit=True, row_factory=psycopg.rows.dict_row) as conn:
            await _take_turns(db, conn, provider, turns)


@pytest.mark.soak
@pytest.mark.timeout(90)
async def test_the_same_where_an_answer_is_lost_with_its_worker(
    own_server: EmbeddedPostgres, own_dsn: str, models: ModelServer
) -> None:
    async with PostgresDb(own_dsn, worker="external", settings=FAST) as db:
        with psycopg.connect(own_dsn, autocommit=True, row_factory=psycopg.rows.dict_row) as conn:
            await _take_turns(db, conn, models, 99, is_lost=True)


async def _take_turns(db: PostgresDb, conn: Conn, provider: ModelServer, turns: int, *, is_lost: bool = False) -> None:
    @tool(repeat="pure")
    async def look(number: int) -> str:
        """Looks."""
        return "x" * 1000

    written: list[int] = []

    def answer(body: dict[str, Any]) -> Answer:
        made = sum(item.get("type") == "function_call" for item in body["input"])
        if made % (turns // 3) == 0:
            written.append(one(conn, "select (pg_current_wal_insert_lsn() - '0/0')::bigint"))
        return reply(calls=[tool_call("look", {"number": made})], usage=USED) if made < turns else hang()

    provider.always(answer)
    agent = agent_at(provider, db, tools=[look], max_turns=200)
    async with Worker(db, grace=0):
        run = await agent.arun("Look. " + "y" * 200_000, background=True)
        await until(lambda: len(provider.calls) == turns + 1, within=60)
        if not is_lost:
            await until_noted(conn, run.run_id)
    sizes = [row["size"] for row in conn.execute("select length(data::text) as size from pgrun.steps").fetchall()]
    assert len(sizes) == 2 * turns
    assert max(sizes) < 3000
    thirds = [after - before for before, after in pairwise(written)]
    assert len(thirds) == 3
    assert max(thirds) < 1.5 * min(thirds) < 2_000_000, thirds
    async with Worker(db):
        await (provider.await_for_calls(turns + 2) if is_lost else provider.await_for_lookups(1))
        provider.release()
        await run.aresult(timeout=10)
    assert len(provider.calls) == turns + 1 + is_lost, "none but the last is made again, and that only if it is lost"
    assert one(conn, "select count(*) from pgrun.steps") == 2 * turns
