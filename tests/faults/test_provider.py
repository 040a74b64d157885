"""Workers that are killed at each instant of a call in background mode: what was paid, what was asked twice, and the result.

A finished call is never made again, and neither is one whose id is in the row. Between its request and its first event a call is
made again, or not, as the policy says.
"""

import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import psycopg
import pytest
from psycopg.rows import dict_row
from support.answering import USED, until_noted
from support.database import Conn
from support.errand_agent import errands
from support.processes import Processes, WorkerProcess
from support.rows import Row, row_of, until_all
from support.tables import one
from support.until import until

from pgrun import Agent, OpenAIResponses, PostgresDb, RetryPolicy, RunCancelled, RunFailed
from pgrun.retry import Ambiguous
from pgrun.testing import ModelServer, hang, reply, tool_call

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

LEASE = 1.5


@pytest.fixture
def workers(dsn: str, provider: ModelServer) -> Iterator[Processes]:
    """Starts workers that know the database and the provider of this test."""
    with Processes(dsn, provider.environ) as started:
        yield started


def agent_in(db: PostgresDb, ambiguous: Ambiguous = "retry") -> Agent[str]:
    """An agent that travels; it finds its provider by the worker's environment."""
    retry = RetryPolicy(base_delay=0.05, ambiguous=ambiguous)
    return Agent(name="Answering", model=OpenAIResponses("gpt-5-mini", api_key="test"), db=db, retry=retry)


async def begin(workers: Processes, *options: str) -> WorkerProcess:
    worker = workers.worker(*options, lease=LEASE)
    await worker.ready()
    return worker


@contextmanager
def locked(dsn: str, run_id: str) -> Iterator["Lock"]:
    """The row of a run, for which whoever wants to write to it has to wait while the block runs."""
    with psycopg.connect(dsn, row_factory=dict_row) as holder, psycopg.connect(dsn, autocommit=True) as looking:
        holder.execute("select from pgrun.jobs where run_id = %s for update", [run_id])
        yield Lock(holder, looking)


class Lock:
    """A lock on a row, and those who wait for it."""

    def __init__(self, holder: "psycopg.Connection[Any]", looking: "psycopg.Connection[Any]") -> None:
        self._holder = holder
        self._looking = looking

    def waiting(self) -> list[int]:
        """The backends that wait for it."""
        query = "select pid from pg_stat_activity where %s = any (pg_blocking_pids(pid))"
        return [pid for (pid,) in self._looking.execute(query, [self._holder.info.backend_pid]).fetchall()]

    async def kill_who_waits(self, worker: WorkerProcess) -> None:
        """Kills the worker as soon as it waits, and what it wanted to write with it."""
        waiting = await until(self.waiting)
        worker.kill()
        for pid in waiting:
            self._looking.execute("select pg_terminate_backend(%s, 5000)", [pid])


def assert_billed_once(row: Row, provider: ModelServer, *, calls: int = 1) -> None:
    """That as many calls were made, each was paid for once, and the run's row says so."""
    assert (len(provider.calls), provider.paid) == (calls, calls)
    paid = provider.paid_tokens
    assert row["metrics"]["total_tokens"] == paid.input_tokens + paid.output_tokens
    assert row["call"] is None


@pytest.mark.parametrize("ambiguous", ["retry", "fail"])
async def test_before_the_request(db: PostgresDb, dsn: str, conn: Conn, ambiguous: Ambiguous) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as nobody:
        port = nobody.getsockname()[1]
        environ = {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "test"}
        with Processes(dsn, environ) as workers:
            first = await begin(workers)
            run = await agent_in(db, ambiguous).arun("survive", background=True)
            connection, _ = await anyio.to_thread.run_sync(nobody.accept)
            with connection:  # nobody has read the request
                first.kill()
            nobody.close()
            with ModelServer(port=port) as provider:
                provider.always(reply("finished", usage=USED))
                await begin(workers)
                if ambiguous == "retry":
                    assert await run.aresult(timeout=20) == "finished"
                    assert_billed_once(row_of(conn, run.run_id), provider)
                else:
                    with pytest.raises(RunFailed) as caught:
                        await run.aresult(timeout=20)
                    assert caught.value.error_type == "ModelCallLost"
                    assert provider.calls == []


@pytest.mark.parametrize("ambiguous", ["retry", "fail"])
async def test_after_the_request_and_before_the_id(
    db: PostgresDb, conn: Conn, provider: ModelServer, workers: Processes, ambiguous: Ambiguous
) -> None:
    provider.script(hang(silent=True), reply("asked again", usage=USED))
    first = await begin(workers)
    run = await agent_in(db, ambiguous).arun("survive", background=True)
    await provider.await_for_calls(1)
    first.kill()
    provider.release()  # and the provider answers, to nobody
    await begin(workers)
    if ambiguous == "retry":
        assert await run.aresult(timeout=20) == "asked again"
        assert (len(provider.calls), provider.paid) == (2, 2)
        assert row_of(conn, run.run_id)["metrics"]["total_tokens"] == 150, "of the lost answer nobody knows"
    else:
        with pytest.raises(RunFailed) as caught:
            await run.aresult(timeout=20)
        assert caught.value.error_type == "ModelCallLost"
        assert (len(provider.calls), provider.paid) == (1, 1)


async def test_after_the_first_event_and_before_its_id_is_written(
    db: PostgresDb, dsn: str, conn: Conn, provider: ModelServer, workers: Processes
) -> None:
    provider.script(hang(silent=True), reply("asked again", usage=USED))
    first = await begin(workers)
    run = await agent_in(db).arun("survive", background=True)
    await provider.await_for_calls(1)
    with locked(dsn, run.run_id) as lock:
        provider.release()
        await lock.kill_who_waits(first)
    await begin(workers)
    assert await run.aresult(timeout=20) == "asked again"
    assert (len(provider.calls), provider.paid) == (2, 2)
    assert row_of(conn, run.run_id)["metrics"]["total_tokens"] == 150, "of the lost answer nobody knows"


async def test_in_the_middle_of_the_stream(
    db: PostgresDb, conn: Conn, provider: ModelServer, workers: Processes
) -> None:
    provider.script(hang())
    first = await begin(workers)
    run = await agent_in(db).arun("survive", background=True)
    response_id = await until_noted(conn, run.run_id)
    first.kill()
    await begin(workers)
    await provider.await_for_lookups(1, timeout=15)
    provider.release()
    assert await run.aresult(timeout=20) == "A made-up answer to: survive"
    assert provider.calls[0].response_id == response_id
    row = row_of(conn, run.run_id)
    assert row["attempt"] == 2
    assert_billed_once(row, provider)


async def test_after_the_last_event_and_before_the_end_is_written(
    db: PostgresDb, dsn: str, conn: Conn, provider: ModelServer, workers: Processes
) -> None:
    provider.script(hang())
    first = await begin(workers)
    run = await agent_in(db).arun("survive", background=True)
    await until_noted(conn, run.run_id)
    with locked(dsn, run.run_id) as lock:
        provider.release()
        await lock.kill_who_waits(first)
    assert row_of(conn, run.run_id)["status"] == "running"
    await begin(workers)
    assert await run.aresult(timeout=20) == "A made-up answer to: survive"
    assert_billed_once(row_of(conn, run.run_id), provider)


async def test_after_an_answer_with_calls_and_before_it_is_recorded(
    db: PostgresDb, dsn: str, conn: Conn, provider: ModelServer, workers: Processes, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    notes.with_suffix(".go").touch()
    asked = reply(calls=[tool_call("note", {"line": "one"})], usage=USED, deltas=20, interval=0.1)
    provider.script(asked, reply("All is noted.", usage=USED))
    first = await begin(workers, "--import", "support.errand_agent")
    run = await errands(db).arun("Note it.", background=True, metadata={"file": str(notes)})
    await until_noted(conn, run.run_id)
    with locked(dsn, run.run_id) as lock:
        await lock.kill_who_waits(first)
    assert not notes.exists()
    await begin(workers, "--import", "support.errand_agent")
    assert await run.aresult(timeout=20) == "All is noted."
    assert len(notes.read_text().splitlines()) == 1
    assert_billed_once(row_of(conn, run.run_id), provider, calls=2)


async def test_between_a_tool_call_and_its_record(
    db: PostgresDb, dsn: str, conn: Conn, provider: ModelServer, workers: Processes, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    asked = reply(calls=[tool_call("note", {"line": "one"})], usage=USED)
    provider.script(asked, reply("All is noted.", usage=USED))
    first = await begin(workers, "--import", "support.errand_agent")
    run = await errands(db).arun("Note it.", background=True, metadata={"file": str(notes)})
    await until(notes.exists)
    with locked(dsn, run.run_id) as lock:
        notes.with_suffix(".go").touch()
        await lock.kill_who_waits(first)
    assert one(conn, "select count(*) from pgrun.steps") == 1
    await begin(workers, "--import", "support.errand_agent")
    assert await run.aresult(timeout=20) == "All is noted."
    before, after = notes.read_text().splitlines()
    assert before == after, "what is called again has the key it had"
    assert_billed_once(row_of(conn, run.run_id), provider, calls=2)


async def test_an_answer_that_the_provider_keeps_no_longer(
    db: PostgresDb, conn: Conn, provider: ModelServer, workers: Processes
) -> None:
    provider.script(hang(), hang(), reply("asked again", usage=USED))
    first = await begin(workers)
    lenient = await agent_in(db).arun("lenient", background=True)
    await until_noted(conn, lenient.run_id)
    strict = await agent_in(db, "fail").arun("strict", background=True)
    await until_noted(conn, strict.run_id)
    first.kill()
    for response_id in provider.responses:
        provider.forget(response_id)
    await begin(workers)
    assert await lenient.aresult(timeout=20) == "asked again"
    with pytest.raises(RunFailed) as caught:
        await strict.aresult(timeout=20)
    assert caught.value.error_type == "ModelCallLost"
    assert len(provider.calls) == 3


async def test_a_worker_that_was_stopped_for_too_long_and_its_successor_read_the_same_answer(
    db: PostgresDb, conn: Conn, provider: ModelServer, workers: Processes
) -> None:
    provider.script(hang())
    stopped = await begin(workers)
    run = await agent_in(db).arun("taken over", background=True)
    await until_noted(conn, run.run_id)
    stopped.send(signal.SIGSTOP)
    await begin(workers)
    await provider.await_for_lookups(1, timeout=15)
    stopped.send(signal.SIGCONT)
    await stopped.says("was cut off for longer than its lease")
    provider.release()
    assert await run.aresult(timeout=20) == "A made-up answer to: taken over"
    assert_billed_once(row_of(conn, run.run_id), provider)


async def test_a_deploy_costs_nothing(db: PostgresDb, conn: Conn, provider: ModelServer, workers: Processes) -> None:
    provider.script(hang(), hang(silent=True))
    first = await begin(workers, "--grace", "30")
    early = await agent_in(db).arun("early", background=True)
    await until_noted(conn, early.run_id)
    late = await agent_in(db).arun("late", background=True)
    await provider.await_for_calls(2)
    first.send(signal.SIGTERM)
    row = (await until_all(conn, "pending", [early.run_id]))[0]
    assert (row["attempt"], row["error"]) == (0, None)
    assert row_of(conn, late.run_id)["status"] == "running", "its id is not known yet"
    provider.release()
    assert await first.ends() == 0
    await begin(workers)
    for run, text in ((early, "early"), (late, "late")):
        assert await run.aresult(timeout=20) == f"A made-up answer to: {text}"
        assert row_of(conn, run.run_id)["attempt"] == 1
    assert (len(provider.calls), provider.paid) == (2, 2)


async def test_a_drain_does_not_wait_for_the_provider(
    db: PostgresDb, conn: Conn, provider: ModelServer, workers: Processes
) -> None:
    provider.script(reply("Hi", delay=20))
    first = await begin(workers, "--grace", "30")
    run = await agent_in(db).arun("?", background=True)
    await until_noted(conn, run.run_id)
    first.send(signal.SIGTERM)
    assert await first.ends(within=5) == 0
    row = row_of(conn, run.run_id)
    assert (row["status"], row["attempt"]) == ("pending", 0)
    assert row["call"]["response_id"] in provider.responses


async def _begun_by_a_dead_worker(db: PostgresDb, conn: Conn, provider: ModelServer, workers: Processes) -> Any:
    provider.script(hang())
    worker = await begin(workers)
    run = await agent_in(db).arun("cancelled", background=True)
    await until_noted(conn, run.run_id)
    worker.kill()
    await until(lambda: conn.execute("select from pgrun.worker_status where state = 'lost'").fetchone() is not None)
    return run


def statuses(provider: ModelServer) -> list[str]:
    return [body["status"] for body in provider.responses.values()]


async def test_whoever_cancels_a_run_of_a_dead_worker_stops_it_at_the_provider(
    db: PostgresDb, conn: Conn, provider: ModelServer, workers: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await _begun_by_a_dead_worker(db, conn, provider, workers)
    monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
    assert await agent_in(db).acancel_run(run.run_id)
    assert statuses(provider) == ["cancelled"]
    assert one(conn, "select count(*) from pgrun.left_calls") == 0
    with pytest.raises(RunCancelled):
        await run.aresult(timeout=5)


async def test_so_does_the_command_line(db: PostgresDb, conn: Conn, provider: ModelServer, workers: Processes) -> None:
    run = await _begun_by_a_dead_worker(db, conn, provider, workers)
    assert await workers.pgrun("cancel", run.run_id).ends() == 0
    assert statuses(provider) == ["cancelled"]


async def test_what_a_person_cancels_in_sql_is_stopped_by_the_next_worker(
    db: PostgresDb, conn: Conn, provider: ModelServer, workers: Processes
) -> None:
    run = await _begun_by_a_dead_worker(db, conn, provider, workers)
    assert one(conn, "select pgrun.cancel(%s)", run.run_id) == "cancelled"
    assert statuses(provider) == ["in_progress"]
    await begin(workers)
    await until(lambda: statuses(provider) == ["cancelled"])
    await until(lambda: one(conn, "select count(*) from pgrun.left_calls") == 0)


async def test_a_run_that_died_with_its_last_attempt_is_stopped_at_the_provider(
    db: PostgresDb, conn: Conn, provider: ModelServer, workers: Processes
) -> None:
    provider.script(hang())
    worker = await begin(workers)
    run = await agent_in(db).arun("deadly", background=True, max_attempts=1)
    await until_noted(conn, run.run_id)
    worker.kill()
    await begin(workers)
    await until_all(conn, "error", [run.run_id])
    await until(lambda: statuses(provider) == ["cancelled"])
