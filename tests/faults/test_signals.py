"""`pgrun worker` is told to go: it finishes what it holds, gives back what it cannot, and nobody waits for a lease."""

import re
import signal
from collections.abc import Iterator

import pytest
from support.agents import answering_agent, calls_for
from support.database import Conn
from support.netfault import Proxy
from support.processes import Processes
from support.rows import clock, row_of, until_all, workers_of
from support.until import until

from pgrun import PostgresDb
from pgrun.testing import ModelServer, hang

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

LONG_LEASE = 60.0
both_signals = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)


@pytest.fixture(params=["uvloop", "asyncio"])
def loop(request: pytest.FixtureRequest) -> str:
    """The library whose event loop the workers run on; signals are its business."""
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture
def processes(loop: str, dsn: str, models: ModelServer) -> Iterator[Processes]:
    """Starts workers on that event loop."""
    with Processes(dsn, models.environ, uvloop=loop == "uvloop") as started:
        yield started


@both_signals
async def test_a_worker_that_is_told_to_go_finishes_what_it_holds_and_claims_nothing_more(
    number: signal.Signals, db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes
) -> None:
    worker = processes.worker()
    await worker.ready()
    models.script(hang())
    agent = answering_agent(db, models)
    held = await agent.arun("held", background=True)
    await models.await_for_calls(1)

    worker.send(number)
    await worker.says(f"{number.name}: finishing 1 runs")
    late = await agent.arun("too late", background=True)
    await until(lambda: workers_of(conn, worker.pid)[0]["state"] == "draining")
    assert row_of(conn, late.run_id)["status"] == "pending"
    models.release()

    assert await held.aresult(timeout=10)
    assert await worker.ends() == 0
    assert (row_of(conn, held.run_id)["attempt"], row_of(conn, held.run_id)["fence"]) == (1, 1)
    assert (row_of(conn, late.run_id)["status"], row_of(conn, late.run_id)["fence"]) == ("pending", 0)
    assert [call.text for call in models.calls] == ["held"]
    assert workers_of(conn, worker.pid)[0]["state"] == "stopped"


async def test_what_is_not_finished_within_the_grace_is_given_back_uncounted_and_taken_over_at_once(
    db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes
) -> None:
    leaving = processes.worker("--grace", "0.3", lease=LONG_LEASE)
    await leaving.ready()
    models.script(hang(), hang())
    agent = answering_agent(db, models)
    runs = [await agent.arun(text, background=True) for text in ("one", "two")]
    await models.await_for_calls(2)

    leaving.send(signal.SIGTERM)
    assert await leaving.ends() == 0
    for row in await until_all(conn, "pending", [run.run_id for run in runs]):
        assert (row["attempt"], row["fence"], row["error"]) == (0, 1, None)
        assert row["due_at"] <= clock(conn)
    await models.await_for_calls(2, outcome="aborted")

    await processes.worker().ready()
    for row in await until_all(conn, "completed", [run.run_id for run in runs]):
        assert (row["attempt"], row["fence"]) == (1, 2)


async def test_a_second_signal_gives_everything_back_at_once_to_a_worker_that_waits(
    db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes
) -> None:
    leaving = processes.worker("--grace", "60", lease=LONG_LEASE)
    await leaving.ready()
    models.script(hang(), "by the other")
    run = await answering_agent(db, models).arun("given back", background=True)
    await models.await_for_calls(1)
    other = processes.worker(lease=LONG_LEASE)
    other_id = await other.ready()

    leaving.send(signal.SIGTERM)
    await leaving.says("finishing 1 runs")
    sent_at = clock(conn)
    leaving.send(signal.SIGTERM)

    assert await run.aresult(timeout=10) == "by the other"
    row = row_of(conn, run.run_id)
    assert (row["started_at"] - sent_at).total_seconds() < 2
    assert (row["attempt"], row["fence"], str(row["worker_id"])) == (1, 2, other_id)
    assert calls_for(models, "given back") == ["aborted", "answered"]
    assert await leaving.ends() == 0
    assert "stopping at once" in leaving.output


async def test_a_second_signal_ends_a_worker_even_when_the_database_is_out_of_reach(
    db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes, proxy: Proxy
) -> None:
    leaving = processes.worker("--grace", "60", dsn=proxy.conninfo)
    await leaving.ready()
    models.script(hang())
    run = await answering_agent(db, models).arun("left behind", background=True)
    await models.await_for_calls(1)

    proxy.black_hole()
    leaving.send(signal.SIGTERM)
    await leaving.says("finishing 1 runs")
    leaving.send(signal.SIGTERM)
    assert await leaving.ends(within=6) == 1

    await processes.worker().ready()
    assert await run.aresult(timeout=10)
    assert row_of(conn, run.run_id)["attempt"] == 2


async def test_an_idle_worker_leaves_at_once(loop: str, conn: Conn, processes: Processes) -> None:
    worker = processes.worker("--log-level", "debug", lease=LONG_LEASE)
    await worker.ready()
    assert re.search(rf"the event loop is {loop}\b", worker.output)
    worker.send(signal.SIGINT)
    assert await worker.ends(within=3) == 0
    assert workers_of(conn, worker.pid)[0]["state"] == "stopped"
    assert "Traceback" not in worker.output
