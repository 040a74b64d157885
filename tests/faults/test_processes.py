"""`pgrun worker --processes N`: it replaces workers that die, takes them with it when it goes, and leaves no orphans."""

import os
import re
import signal

import pytest
from support.agents import answering_agent, calls_for
from support.database import Conn
from support.processes import Processes, SupervisorProcess
from support.rows import row_of, until_all, workers_of
from support.until import until

from pgrun import Agent, PostgresDb
from pgrun.testing import ModelServer, hang

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

ONE_RUN_EACH = ("--concurrency", "1")


async def test_every_process_is_a_worker_that_executes(
    db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes
) -> None:
    supervisor = processes.supervisor(3, *ONE_RUN_EACH)
    worker_ids = await supervisor.ready(3)
    run_ids = await held_by(supervisor, answering_agent(db, models), models, 3)

    assert {str(row_of(conn, run_id)["worker_id"]) for run_id in run_ids} == worker_ids
    for pid in supervisor.workers:
        (worker,) = workers_of(conn, pid)
        assert (worker["mode"], worker["state"], worker["concurrency"]) == ("daemon", "alive", 1)
    models.release()
    await until_all(conn, "completed", run_ids)


async def test_a_killed_process_is_replaced_and_its_run_is_finished_elsewhere(
    db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes
) -> None:
    supervisor = processes.supervisor(2)
    await supervisor.ready(2)
    models.script(hang(), "finished")
    run = await answering_agent(db, models).arun("survive", background=True)
    await models.await_for_calls(1)
    first, others = owner_of(conn, run.run_id), supervisor.workers

    os.kill(first, signal.SIGKILL)

    assert await run.aresult(timeout=20) == "finished"
    assert owner_of(conn, run.run_id) != first
    assert calls_for(models, "survive") == ["aborted", "answered"]
    await supervisor.says(rf"worker process {first} ended: killed by SIGKILL")
    await supervisor.ready(3)
    assert len(supervisor.workers) == 2
    assert supervisor.workers & others == others - {first}
    supervisor.send(signal.SIGTERM)
    assert await supervisor.ends() == 0


async def test_a_process_that_is_told_to_go_drains_and_is_replaced(
    db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes
) -> None:
    supervisor = processes.supervisor(2)
    await supervisor.ready(2)
    (run_id,) = await held_by(supervisor, answering_agent(db, models), models, 1)
    leaving = owner_of(conn, run_id)
    os.kill(leaving, signal.SIGTERM)
    await supervisor.says("SIGTERM: finishing 1 runs")
    models.release()
    await supervisor.says(rf"worker process {leaving} ended: exit code 0 ")
    await supervisor.ready(3)
    (row,) = await until_all(conn, "completed", [run_id])
    assert row["attempt"] == 1


@pytest.mark.parametrize(
    ("number", "reached"),
    [(signal.SIGTERM, "the supervisor"), (signal.SIGINT, "its process group"), (signal.SIGTERM, "every process")],
)
async def test_after_a_signal_all_finish_what_they_hold_whoever_it_reaches(
    number: signal.Signals, reached: str, db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes
) -> None:
    """A shell's kill reaches the supervisor, a Ctrl-C its process group, systemd's stop every process."""
    supervisor = processes.supervisor(2, *ONE_RUN_EACH)
    await supervisor.ready(2)
    run_ids = await held_by(supervisor, answering_agent(db, models), models, 2)
    pids = supervisor.workers

    if reached == "its process group":
        os.killpg(supervisor.pid, number)
    else:
        for pid in {supervisor.pid, *(pids if reached == "every process" else ())}:
            os.kill(pid, number)
    await supervisor.says(f"{number.name}: 2 worker processes finish what they hold")
    await supervisor.says(r"(?s)(: finishing 1 runs.*){2}")
    models.release()

    for row in await until_all(conn, "completed", run_ids):
        assert (row["attempt"], row["fence"]) == (1, 1)
    assert await supervisor.ends() == 0
    assert [workers_of(conn, pid)[0]["state"] for pid in pids] == ["stopped", "stopped"]
    assert "Traceback" not in supervisor.output
    assert "stopping" not in supervisor.output


async def test_a_second_signal_stops_all_at_once(
    db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes
) -> None:
    supervisor = processes.supervisor(2, "--grace", "60", *ONE_RUN_EACH)
    await supervisor.ready(2)
    run_ids = await held_by(supervisor, answering_agent(db, models), models, 2)
    supervisor.send(signal.SIGTERM)
    await supervisor.says(r"(?s)(: finishing 1 runs.*){2}")
    supervisor.send(signal.SIGTERM)

    assert await supervisor.ends(within=6) == 0
    for row in await until_all(conn, "pending", run_ids):
        assert (row["attempt"], row["fence"]) == (0, 1)
    assert supervisor.output.count("stopping at once") == 2


async def test_a_process_that_does_not_stop_is_killed_and_counts_as_failed(conn: Conn, processes: Processes) -> None:
    supervisor = processes.supervisor(2, "--grace", "60", "--import", "support.blocking_agent")
    await supervisor.ready(2)
    conn.execute("""select pgrun.submit('Blocking', '"60"')""")
    await supervisor.says("the event loop has been blocked")
    supervisor.send(signal.SIGTERM)
    await supervisor.says("2 worker processes finish what they hold")
    supervisor.send(signal.SIGTERM)
    assert await supervisor.ends(within=15) == 1
    assert len(re.findall(r"worker process \d+ does not stop and is killed", supervisor.output)) == 1


@pytest.mark.parametrize("when", ["while they execute", "while they drain"])
async def test_the_processes_of_a_killed_supervisor_drain_and_go(
    when: str, db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes
) -> None:
    supervisor = processes.supervisor(2, *ONE_RUN_EACH)
    await supervisor.ready(2)
    run_ids = await held_by(supervisor, answering_agent(db, models), models, 2)
    pids = supervisor.workers
    if when == "while they drain":
        supervisor.send(signal.SIGTERM)
        await supervisor.says(r"(?s)(: finishing 1 runs.*){2}")

    supervisor.send(signal.SIGKILL)
    await until(lambda: {workers_of(conn, pid)[0]["state"] for pid in pids} == {"draining"})
    models.release()

    for row in await until_all(conn, "completed", run_ids):
        assert (row["attempt"], row["fence"]) == (1, 1)
    assert await supervisor.ends() == -signal.SIGKILL  # its output ends with the last process that could write to it
    assert [workers_of(conn, pid)[0]["state"] for pid in pids] == ["stopped", "stopped"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
async def test_a_process_that_never_came_up_goes_with_its_supervisor(
    number: signal.Signals, processes: Processes
) -> None:
    supervisor = processes.supervisor(2, "--import", "support.hanging_import")
    await supervisor.says("the import hangs")
    supervisor.send(number)
    assert await supervisor.ends(within=5) == (0 if number is signal.SIGTERM else -number)


async def test_processes_that_keep_dying_are_started_less_and_less_often(processes: Processes) -> None:
    supervisor = processes.supervisor(3, "--import", "support.raising_import")
    await supervisor.says(r"(?s)(another one starts in .*){3}", within=20)
    delays = [
        float(delay) for delay in re.findall(r"exit code 1 after .*another one starts in (\S+) s", supervisor.output)
    ]
    assert delays[0] == 0
    assert 0.7 < delays[1] < 1.3
    assert 1.4 < delays[2] < 2.6
    assert not supervisor.workers
    supervisor.send(signal.SIGTERM)
    assert await supervisor.ends(within=1) == 0


async def test_wrong_usage_is_said_once_and_ends_the_command(processes: Processes) -> None:
    supervisor = processes.supervisor(3, "--import", "no.such.module")
    assert await supervisor.ends() == 2
    assert supervisor.output.count("--import no.such.module: No module named 'no'") == 1
    assert supervisor.output.count("starts") == 1


async def held_by(supervisor: SupervisorProcess, agent: Agent[str], models: ModelServer, count: int) -> list[str]:
    """The ids of so many runs, once each waits for the model."""
    models.script(*(hang() for _ in range(count)))
    runs = [await agent.arun(f"held {n}", background=True) for n in range(count)]
    await models.await_for_calls(count)
    return [run.run_id for run in runs]


def owner_of(conn: Conn, run_id: str) -> int:
    """The id of the process that has claimed a run."""
    worker_id = row_of(conn, run_id)["worker_id"]
    row = conn.execute("select pid from pgrun.worker_status where worker_id = %s", [worker_id]).fetchone()
    assert row is not None
    assert isinstance(row["pid"], int)
    return row["pid"]
