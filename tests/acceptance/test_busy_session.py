"""Many processes that submit into one session at once, each in its own way: one run at a time, none lost, none stuck."""

from collections.abc import Iterator

import pytest
from support.database import Conn
from support.processes import Processes
from support.until import until

from pgrun.testing import ModelServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def processes(dsn: str, models: ModelServer) -> Iterator[Processes]:
    with Processes(dsn, models.environ) as started:
        yield started


async def test_whoever_meets_a_busy_session_gets_what_it_asked_for(processes: Processes, conn: Conn) -> None:
    for _ in range(2):
        await processes.worker().ready()
    ways = ("enqueue", "reject", "interrupt", "rollback", "parallel", "enqueue")
    programs = [processes.program("interrupting", way, "30") for way in ways]
    for program in programs:
        assert await program.ends(within=60) == 0, program

    def open_runs() -> int:
        row = conn.execute("select count(*) as n from pgrun.jobs where finished_at is null").fetchone()
        assert row is not None
        return int(row["n"])

    await until(lambda: open_runs() == 0, within=60)
    rows = conn.execute("select * from pgrun.jobs order by session_seq").fetchall()
    of = {way: [row for row in rows if row["input"].startswith(f"{way}:")] for way in ways}
    rejected = sum(program.output.count("rejected") for program in programs)
    assert len(rows) + rejected == 30 * len(programs)
    assert len(of["reject"]) + rejected == 30
    assert {row["status"] for row in of["parallel"]} == {"completed"}
    for row in rows:
        assert row["status"] == "completed" or row["superseded"], row
    in_turn = [row for row in rows if row["multitask"] != "parallel" and row["started_at"]]
    ends = [row["finished_at"] for row in in_turn]
    for before, after in zip(ends, [row["started_at"] for row in in_turn[1:]], strict=False):
        assert before <= after
