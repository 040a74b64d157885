"""An outcome that the database refuses ends its run in `error`; it ends neither the worker nor is it paid again and again."""

import pytest
from support.agents import answering_agent
from support.database import Conn
from support.rows import row_of

from pgrun import PostgresDb, Worker
from pgrun.testing import ModelServer, server_error

REFUSE = """
create function public.refuse() returns trigger language plpgsql as $$
begin
    raise 'not today' using errcode = 'numeric_value_out_of_range';
end $$;
create trigger refuse before update on pgrun.jobs
    for each row when (new.status = '{status}' and old.status = 'running') execute function public.refuse();
"""


@pytest.mark.parametrize("status", ["completed", "pending"])
async def test_the_run_ends_in_error_and_the_next_is_executed(
    status: str, db: PostgresDb, conn: Conn, models: ModelServer
) -> None:
    conn.execute(REFUSE.format(status=status))
    agent = answering_agent(db, models)
    models.script(server_error() if status == "pending" else "paid")
    async with Worker(db):
        first = await agent.arun("first", background=True)
        (ended,) = await db.await_runs([first.run_id], timeout=10)
        assert ended.status == "error"
        assert "not today" in row_of(conn, first.run_id)["error"]["message"]
        conn.execute("drop trigger refuse on pgrun.jobs")
        assert await (await agent.arun("second", background=True)).aresult(timeout=10)
    assert len(models.calls) == 2
