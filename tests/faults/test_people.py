"""Runs that wait for people outlive everybody: workers that are killed, the database that restarts, the caller that left."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest
from psycopg.rows import dict_row
from support.database import Conn
from support.desk_agent import Receipt, desk
from support.models import ScriptedModel, calling
from support.netfault import Proxy
from support.processes import Processes
from support.rows import row_of, until_all
from support.settings import FAST
from support.tables import one
from support.until import Heard, until, until_heard

from pgrun import Agent, PostgresDb, Worker, tool
from pgrun.db.embedded import EmbeddedPostgres
from pgrun.testing import ModelServer, reply, tool_call

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

WORKER = ("--import", "support.desk_agent")
RECEIPT = {"order": 7, "cents": 100}


def calls(*names: str) -> Any:
    return reply(calls=[tool_call(name, {"order": 7}) for name in names])


@pytest.fixture
def own_processes(own_dsn: str, models: ModelServer) -> Iterator[Processes]:
    with Processes(own_dsn, models.environ) as started:
        yield started


async def by_sql(processes: Processes, conn: Conn, run_id: str) -> None:
    for requirement in row_of(conn, run_id)["requirements"]:
        needs = {"user_input": ', input => \'{"street": "Elm"}\'', "external": ", result => 'signed'"}
        more = needs.get(requirement["kind"], "")
        conn.execute(f"select pgrun.approve(%s, %s{more})".encode(), [run_id, requirement["call_id"]])


async def by_cli(processes: Processes, conn: Conn, run_id: str) -> None:
    for requirement in row_of(conn, run_id)["requirements"]:
        needs = {"user_input": ("--input", '{"street": "Elm"}'), "external": ("--result", "signed")}
        more = needs.get(requirement["kind"], ())
        assert await processes.pgrun("approve", run_id, "--call", requirement["call_id"], *more).ends() == 0


async def by_python(processes: Processes, conn: Conn, run_id: str) -> None:
    program = processes.program("deciding", run_id)
    await until(lambda: row_of(conn, run_id)["status"] == "pending", shown=program)


@pytest.mark.parametrize("decide", [by_sql, by_cli, by_python])
async def test_a_run_waits_without_anybody_over_a_restart_of_everything_and_goes_on_in_another_process(
    decide: Callable[[Processes, Conn, str], Any],
    own_server: EmbeddedPostgres,
    own_dsn: str,
    models: ModelServer,
    own_processes: Processes,
    tmp_path: Path,
) -> None:
    models.script(calls("refund", "look_up", "ship", "sign"), RECEIPT)
    notes = tmp_path / "notes"
    first = own_processes.worker(*WORKER, "--concurrency", "1")
    await first.ready()
    async with PostgresDb(own_dsn, worker="external") as db:
        run = await desk(db).arun("Order 7.", output_schema=Receipt, background=True, metadata={"file": str(notes)})
        with psycopg.connect(own_dsn, autocommit=True, row_factory=dict_row) as conn:
            await until_all(conn, "paused", [run.run_id])
            assert one(conn, "select running from pgrun.worker_status") == 0
    first.kill()
    await anyio.to_thread.run_sync(own_server.restart, "immediate")
    with psycopg.connect(own_dsn, autocommit=True, row_factory=dict_row) as conn:
        assert (
            one(conn, "select waits_for from pgrun.runs")
            == "confirmation of refund, user_input of ship, external of sign"
        )
        assert one(conn, "select attempt from pgrun.jobs") == 0
        await decide(own_processes, conn, run.run_id)
    await own_processes.worker(*WORKER).ready()
    async with PostgresDb(own_dsn, worker="external") as db:
        ended = await desk(db).aget_run_output(run.run_id, output_schema=Receipt)
        assert ended is not None
        assert await ended.aresult(timeout=20) == Receipt(order=7, cents=100)
    assert sorted(notes.read_text().splitlines()) == ["look up 7", "refund 7", "ship 7 to Elm"]
    assert models.paid == 2
    assert models.calls[1].body["text"]["format"]["name"] == "Receipt"
    results = [item["output"] for item in models.calls[1].body["input"] if item.get("type") == "function_call_output"]
    assert results == ["done: refund 7", "done: look up 7", "done: ship 7 to Elm", "signed"]


async def bill_until_killed(db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes, notes: Path) -> str:
    """A run whose worker was killed inside the unsafe tool, and that another worker has paused; its id."""
    models.script(calls("bill", "look_up"), "Done.")
    first = processes.worker(*WORKER, lease=1)
    await first.ready()
    run = await desk(db).arun("Order 7.", background=True, metadata={"file": str(notes), "hangs": True})
    await until(lambda: one(conn, "select count(*) from pgrun.steps") == 2 and notes.read_text().count("\n") == 2)
    first.kill()
    await processes.worker(*WORKER, lease=1).ready()
    await until_all(conn, "paused", [run.run_id])
    return run.run_id


@pytest.mark.parametrize(
    ("words", "bills", "shown"),
    [
        (["approve"], 2, "done: bill 7"),
        (["approve", "--result", "billed"], 1, "billed"),
        (["reject", "--note", "no"], 1, "Nobody knows whether this call was executed"),
    ],
)
async def test_a_call_in_which_a_worker_was_killed_is_not_repeated_unless_a_person_says_so(
    db: PostgresDb,
    conn: Conn,
    models: ModelServer,
    processes: Processes,
    tmp_path: Path,
    words: list[str],
    bills: int,
    shown: str,
) -> None:
    notes = tmp_path / "notes"
    run_id = await bill_until_killed(db, conn, models, processes, notes)
    row = row_of(conn, run_id)
    ((kind, name, times),) = [(each["kind"], each["name"], each["times"]) for each in row["requirements"]]
    assert (kind, name, times) == ("repeat", "bill", 1)
    assert (row["attempt"], notes.read_text().count("bill")) == (1, 1)  # the one that died is used up, the other is not
    assert await processes.pgrun(words[0], run_id, *words[1:]).ends() == 0
    await until_all(conn, "completed", [run_id], within=20)
    assert [*map(notes.read_text().count, ("bill", "look up"))] == [bills, 1]
    first, _ = (item["output"] for item in models.calls[-1].body["input"] if item.get("type") == "function_call_output")
    assert first.startswith(shown)
    assert models.paid == 2


async def test_a_drained_worker_gives_back_a_run_whose_call_it_had_to_stop_and_the_next_one_asks(
    db: PostgresDb, conn: Conn, heard: Heard
) -> None:
    began = anyio.Event()

    @tool
    async def bill(order: int) -> str:
        began.set()
        await anyio.sleep_forever()
        return "never"

    agent = Agent(name="Bills", model=ScriptedModel(calling(("bill", '{"order": 7}'))), tools=[bill], db=db)
    async with Worker(db, grace=0):
        run = await agent.arun("Order 7.", background=True)
        await began.wait()
    row = row_of(conn, run.run_id)
    assert (row["status"], row["attempt"], [*row["begun"]]) == ("pending", 0, ["2"])
    async with Worker(db):
        await until_heard(heard, "paused", run_id=run.run_id)
    assert row_of(conn, run.run_id)["requirements"][0]["kind"] == "repeat"


async def test_a_thread_that_ends_after_its_worker_was_told_to_go_is_no_question(
    db: PostgresDb, conn: Conn, heard: Heard
) -> None:
    began, may_end = anyio.Event(), threading.Event()

    @tool
    def bill(order: int) -> str:
        anyio.from_thread.run_sync(began.set)
        assert may_end.wait(10)
        return "billed"

    agent = Agent(name="Bills", model=ScriptedModel(calling(("bill", '{"order": 7}')), "Done."), tools=[bill], db=db)

    async def serve() -> None:
        async with Worker(db, grace=0):
            await began.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        run = await agent.arun("Order 7.", background=True)
        await until_heard(heard, "drained")  # and whatever runs has been cancelled since
        may_end.set()
    row = row_of(conn, run.run_id)
    assert row["status"] == "pending"
    assert not row["begun"]
    assert one(conn, "select data ->> 'result' from pgrun.steps where step = 2") == "billed"
    async with Worker(db):
        assert await run.aresult(timeout=10) == "Done."


async def test_a_pause_whose_answer_is_lost_stands_and_a_decision_too(proxy: Proxy, conn: Conn, heard: Heard) -> None:
    @tool(requires_confirmation=True)
    def refund(order: int) -> str:
        return "refunded"

    async with PostgresDb(proxy.conninfo, worker="external", settings=FAST) as db, Worker(db):
        rome = calling(("refund", '{"order": 7}'))
        agent = Agent(name="Refunds", model=ScriptedModel(rome, "Done."), tools=[refund], db=db)
        proxy.lose_answer("pause_run", "approve_run", "begin_step")
        run = await agent.arun("Order 7.")
        assert run.is_paused
        run.active_requirements[0].confirm()
        assert (await agent.acontinue_run(run)).content == "Done."
    assert sorted(proxy.lost) == ["approve_run", "begin_step", "pause_run"]  # the caller may be faster than the worker
    assert not [facts for name, facts in heard if name == "stale"]
    assert [each["approved"] for each in row_of(conn, run.run_id)["requirements"]] == [True]
