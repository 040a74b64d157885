"""Two hundred runs of one session from four processes: all completed, one at a time, in order, none lost."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from support.database import Conn
from support.processes import Processes
from support.until import until

from pgrun.testing import ModelServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

_PROCESSES, _EACH = 4, 50


@pytest.fixture
def processes(dsn: str, models: ModelServer) -> Iterator[Processes]:
    with Processes(dsn, models.environ) as started:
        yield started


async def test_runs_of_one_session_from_many_processes_execute_in_order(
    processes: Processes, conn: Conn, models: ModelServer
) -> None:
    for _ in range(2):
        await processes.worker().ready()
    programs = [processes.program("talking", str(number), str(_EACH)) for number in range(_PROCESSES)]
    for program in programs:
        assert await program.ends(within=60) == 0, program
    total = _PROCESSES * _EACH

    def completed() -> bool:
        row = conn.execute("select count(*) as n from pgrun.jobs where status = 'completed'").fetchone()
        return row == {"n": total}

    await until(
        completed, within=60, shown=conn.execute("select status, count(*) from pgrun.jobs group by 1").fetchall()
    )
    rows = conn.execute("select input, session_seq, worker_id from pgrun.jobs order by session_seq").fetchall()
    assert [row["session_seq"] for row in rows] == list(range(1, total + 1))
    calls = models.calls
    assert [call.text for call in calls] == [row["input"] for row in rows]
    for before, after in pairwise(calls):
        assert before.answered_at is not None
        assert before.answered_at <= after.received_at
    for number in range(_PROCESSES):  # what one process submitted, it submitted in this order
        own = [row["input"] for row in rows if row["input"].startswith(f"{number}:")]
        assert own == [f"{number}:{place}" for place in range(_EACH)]
