"""Workers that die, or seem to: their runs end elsewhere, once, and what they write too late changes nothing."""

import signal
from datetime import timedelta

import pytest
from support.agents import answering_agent, calls_for
from support.database import Conn
from support.processes import Process, Processes
from support.rows import clock, row_of, rows_of, until_all, workers_of
from support.until import until

from pgrun import PostgresDb
from pgrun.testing import ModelServer, hang

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

LEASE = 2.0
TAKEN_OVER_WITHIN = timedelta(seconds=LEASE + 2)


async def test_a_killed_workers_run_is_finished_by_another_soon_after_the_lease(
    db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes
) -> None:
    first = processes.worker(lease=LEASE)
    await first.ready()
    models.script(hang(), "finished")
    run = await answering_agent(db, models).arun("survive", background=True)
    await models.await_for_calls(1)
    second = processes.worker(lease=LEASE)
    second_id = await second.ready()

    killed_at = clock(conn)
    first.kill()

    assert await run.aresult(timeout=20) == "finished"
    row = row_of(conn, run.run_id)
    assert row["finished_at"] - killed_at < TAKEN_OVER_WITHIN
    assert (row["status"], str(row["worker_id"])) == ("completed", second_id)
    assert (row["attempt"], row["fence"], row["error"]) == (2, 2, None)
    assert calls_for(models, "survive") == ["aborted", "answered"]
    assert [worker["state"] for worker in workers_of(conn, first.pid)] == ["dead"]


async def test_a_run_that_kills_every_worker_ends_in_error(
    db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes
) -> None:
    models.always(hang())
    run = await answering_agent(db, models).arun("deadly", background=True, max_attempts=2)
    for attempt in (1, 2):
        worker = processes.worker(lease=1)
        await models.await_for_calls(attempt, timeout=15)
        worker.kill()
    await processes.worker(lease=1).ready()
    row = (await until_all(conn, "error", [run.run_id]))[0]
    assert row["attempt"] == 2
    assert row["error"]["type"] == "LeaseLost"
    assert len(models.calls) == 2


async def test_a_worker_that_was_stopped_for_too_long_changes_nothing_and_comes_back_as_a_new_one(
    db: PostgresDb, conn: Conn, models: ModelServer, processes: Processes
) -> None:
    stopped = processes.worker(lease=LEASE)
    stopped_id = await stopped.ready()
    models.script(hang(), "by the second")
    agent = answering_agent(db, models)
    run = await agent.arun("taken over", background=True)
    await models.await_for_calls(1)
    second = processes.worker(lease=LEASE)
    await second.ready()

    stopped.send(signal.SIGSTOP)
    assert await run.aresult(timeout=20) == "by the second"
    ended = row_of(conn, run.run_id)
    models.release()  # now there is also an answer for the first one
    await models.await_for_calls(2, outcome="answered")
    stopped.send(signal.SIGCONT)

    await stopped.says(f"{stopped_id} was cut off for longer than its lease")
    await until(lambda: [worker["state"] for worker in workers_of(conn, stopped.pid)] == ["dead", "alive"])
    second.kill()
    models.script("by the revived")
    further = await agent.arun("further", background=True)
    assert await further.aresult(timeout=20) == "by the revived"
    assert str(row_of(conn, further.run_id)["worker_id"]) == str(workers_of(conn, stopped.pid)[1]["worker_id"])
    assert row_of(conn, run.run_id) == ended


async def test_the_runs_of_a_killed_program_are_finished_by_a_later_worker(
    conn: Conn, models: ModelServer, processes: Processes
) -> None:
    program, run_ids = await _program_with_runs_in_a_call(models, processes, "stay")
    program.kill()
    assert [row["status"] for row in rows_of(conn, run_ids)] == ["running"] * 3
    await _a_later_worker_finishes(conn, models, processes, run_ids, attempt=2)


async def test_the_runs_of_a_terminated_program_are_finished_by_a_later_worker(
    conn: Conn, models: ModelServer, processes: Processes
) -> None:
    program, run_ids = await _program_with_runs_in_a_call(models, processes, "stay")
    program.send(signal.SIGTERM)  # Python ends at once, without a word
    assert await program.ends() == -signal.SIGTERM
    await _a_later_worker_finishes(conn, models, processes, run_ids, attempt=2)


@pytest.mark.parametrize("how", ["leave", "interrupted"])
async def test_a_program_that_ends_gives_its_runs_back_uncounted(
    how: str, conn: Conn, models: ModelServer, processes: Processes
) -> None:
    program, run_ids = await _program_with_runs_in_a_call(models, processes, "leave" if how == "leave" else "stay")
    if how == "interrupted":
        program.send(signal.SIGINT)
    await program.ends()
    assert [(row["status"], row["attempt"]) for row in rows_of(conn, run_ids)] == [("pending", 0)] * 3
    await _a_later_worker_finishes(conn, models, processes, run_ids, attempt=1)


async def _program_with_runs_in_a_call(
    models: ModelServer, processes: Processes, mode: str
) -> tuple[Process, list[str]]:
    """A program without any daemon, and the ids of its three runs, for which it waits at the model."""
    models.always(hang())
    program = processes.program("submitting", mode, "a", "b", "c")
    await program.says(r"(submitted .*\s+){3}")
    if mode == "stay":
        await models.await_for_calls(3)
    return program, [line.split()[1] for line in program.output.splitlines() if line.startswith("submitted")]


async def _a_later_worker_finishes(
    conn: Conn, models: ModelServer, processes: Processes, run_ids: list[str], *, attempt: int
) -> None:
    models.always("finished")
    worker_id = await processes.worker(lease=LEASE).ready()
    for row in await until_all(conn, "completed", run_ids):
        assert (row["attempt"], str(row["worker_id"])) == (attempt, worker_id)
