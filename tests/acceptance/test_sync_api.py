"""The public API without the `a`, from code without an event loop, from threads, and not from inside a loop."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import BaseModel
from support.database import Conn
from support.settings import FAST
from support.tables import one

from pgrun import Agent, OpenAIResponses, PostgresDb, RunCancelled, RunFailed, RunStatus, UsageError
from pgrun.testing import ModelServer, hang, refusal


class Fact(BaseModel):
    city: str


@pytest.fixture
def agent(dsn: str, models: ModelServer) -> Iterator[Agent[Fact]]:
    db = PostgresDb(dsn, settings=FAST)
    model = OpenAIResponses("gpt-5-mini", base_url=models.base_url, api_key="test")
    yield Agent(name="Sync", model=model, output_schema=Fact, db=db)
    db.close()


def test_a_script_runs_waits_looks_and_cancels(agent: Agent[Fact], models: ModelServer) -> None:
    models.script({"city": "Rome"}, {"city": "Oslo"}, hang())
    assert agent.run("?").content == Fact(city="Rome")
    run = agent.run("?", background=True)
    assert run.status == RunStatus.pending
    assert run.result(timeout=10) == Fact(city="Oslo")
    read = agent.get_run_output(run.run_id)
    assert read is not None
    assert read.content == Fact(city="Oslo")
    hanging = agent.run("?", background=True)
    models.wait_for_calls(3)
    assert agent.cancel_run(hanging.run_id)
    with pytest.raises(RunCancelled):
        hanging.result(timeout=10)


def test_threads_share_one_loop_and_one_listener(agent: Agent[Fact], models: ModelServer) -> None:
    def ask(number: int) -> str:
        return agent.run(f"{number}", background=True).result(timeout=15).city

    with ThreadPoolExecutor(16) as threads:
        cities = list(threads.map(ask, range(64)))
    assert len(cities) == 64
    assert len(models.calls) == 64


def test_failures_come_through(agent: Agent[Fact], models: ModelServer) -> None:
    models.script(refusal("no"))
    with pytest.raises(RunFailed, match="ModelRefused"):
        agent.run("?")


async def test_inside_a_loop_it_says_what_to_await(agent: Agent[Fact]) -> None:
    with pytest.raises(UsageError, match=r"await arun"):
        agent.run("?")
    with pytest.raises(UsageError, match=r"await aget_run_output"):
        agent.get_run_output("01900000-0000-7000-8000-000000000000")


@pytest.mark.slow
def test_a_server_that_forks_after_its_first_use_goes_on_in_parent_and_child(dsn: str, conn: Conn) -> None:
    tests = str(Path(__file__).parent.parent)
    environ = {**os.environ, "PGRUN_DATABASE_URL": dsn, "PYTHONPATH": tests}
    subprocess.run([sys.executable, "-m", "support.forking"], env=environ, check=True, timeout=15)
    submitted = "select array_agg(input ->> 'who' order by input ->> 'who') from pgrun.jobs"
    assert one(conn, submitted) == ["after", "before", "child", "parent"]
