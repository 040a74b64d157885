"""A person who has nothing but psql: submits, watches, cancels, retries, and reads the answer."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pgrun import Agent, OpenAIResponses, PostgresDb, Worker
from pgrun.db.embedded import EmbeddedPostgres
from pgrun.run.definition import AgentDefinition
from pgrun.testing import ModelServer, hang

Psql = Callable[[str], str]


@pytest.fixture
def psql(dsn: str) -> Psql:
    """Types a command into psql and returns what it prints, unaligned."""
    own = EmbeddedPostgres(Path("/nowhere")).bin / "psql"
    program = str(own) if own.exists() else shutil.which("psql")
    assert program, "no psql: the wheel of the extra [embedded] has one"

    def run(command: str) -> str:
        words = [program, dsn, "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", command]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    return run


def _definition(models: ModelServer) -> str:
    model = OpenAIResponses(id="gpt-5-mini", base_url=models.base_url)
    return str(AgentDefinition(model).to_json()).replace("'", '"')


async def test_submit_watch_and_read(psql: Psql, db: PostgresDb, models: ModelServer) -> None:
    models.script("Vacuum comes at night")
    async with Worker(db):
        run_id = psql(f"""select pgrun.submit('Poet', '"A haiku?"', definition => '{_definition(models)}')""")
        await db.await_runs([run_id], timeout=10)
    assert (
        psql(f"select name, status, attempt, error is null from pgrun.runs where run_id = '{run_id}'")
        == "Poet|completed|1|t"
    )
    assert psql(f"select output #>> '{{}}' from pgrun.jobs where run_id = '{run_id}'") == "Vacuum comes at night"
    assert psql("select finished_last_minute, error_rate from pgrun.queue_stats") == "1|0.000"


async def test_cancel_and_retry(psql: Psql, db: PostgresDb, models: ModelServer) -> None:
    models.script(hang(), "second time")
    async with Worker(db):
        run_id = psql(f"""select pgrun.submit('Poet', '"A haiku?"', definition => '{_definition(models)}')""")
        await models.await_for_calls(1)
        assert psql(f"select pgrun.cancel('{run_id}')") == "cancelling"
        await db.await_runs([run_id], timeout=10)
        assert psql(f"select status from pgrun.runs where run_id = '{run_id}'") == "cancelled"
        assert psql(f"select pgrun.retry('{run_id}')") == "pending"
        await db.await_runs([run_id], timeout=10)
    assert psql(f"select status, output from pgrun.jobs where run_id = '{run_id}'") == 'completed|"second time"'
    assert [call.outcome for call in models.calls] == ["aborted", "answered"]


async def test_a_plain_insert_is_a_run_of_the_declared_agent(psql: Psql, db: PostgresDb, models: ModelServer) -> None:
    await Agent(name="Poet", model=OpenAIResponses(id="m", base_url=models.base_url, api_key="test"), db=db).adeclare()
    async with Worker(db):
        inserted = psql("insert into pgrun.jobs (name, input) values ('Poet', '\"one\"') returning run_id")
        run_id = inserted.splitlines()[0]
        (run,) = await db.await_runs([run_id], timeout=10)
    assert (run.status, run.session_id) == ("completed", run_id)
