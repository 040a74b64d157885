"""`pgrun tail`: the stream of a run on a terminal and for scripts."""

import json

import pytest
from support.counting_agent import counted, counting
from support.database import Conn
from support.hands import failed, hire, submit
from support.processes import Processes
from support.rows import row_of
from support.until import until

from pgrun import PostgresDb
from pgrun.testing import ModelServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


async def test_text_comes_as_it_is_said_and_everything_else_in_lines(
    db: PostgresDb, dsn: str, conn: Conn, models: ModelServer
) -> None:
    with Processes(dsn, models.environ) as processes:
        run = await counting(db).arun("100 0.03", background=True)
        tail = processes.pgrun("tail", run.run_id)
        await until(lambda: row_of(conn, run.run_id)["streams"])
        processes.worker("--import", "support.counting_agent")
        await tail.says("1 started attempt 1\n", within=20)
        assert row_of(conn, run.run_id)["status"] == "running"
        assert await tail.ends() == 0
        lines = tail.output.splitlines()
        assert lines[1] == counted(100)
        assert [line.split()[1] for line in (lines[0], *lines[2:])] == ["started", "model_call_completed", "completed"]

        after = processes.pgrun("tail", run.run_id, "--after", "2", "--json")
        assert await after.ends() == 0
        events = [json.loads(line) for line in after.output.splitlines()]
        assert [event["seq"] for event in events] == [*range(3, 3 + len(events))]
        assert events[-1]["kind"] == "completed"
        assert events[-1]["data"]["output"] == counted(100)


async def test_a_failed_run_fails_and_says_why(db: PostgresDb, dsn: str, conn: Conn, models: ModelServer) -> None:
    run_id = await submit(db)
    hand = await hire(db)
    await hand.verbs.finish([failed(await hand.claim_one(), "no such city")])
    with Processes(dsn, models.environ) as processes:
        tail = processes.pgrun("tail", run_id)
        assert await tail.ends() == 1
        assert tail.output == "    1 started attempt 1\n    2 error no such city\n"
        unknown = processes.pgrun("tail", "00000000-0000-0000-0000-000000000000")
        assert await unknown.ends() == 1
        assert "no run 00000000-0000-0000-0000-000000000000 exists" in unknown.output
        wrong = processes.pgrun("tail", run_id, "--after", "-1")
        assert await wrong.ends() == 2
