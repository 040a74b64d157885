"""`pgrun demo`: the product in half a minute, with nothing at hand but the package.

A private Postgres and a model server on this machine, a worker in a second process, and a program that submits and awaits.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pgrun.cli._shared import fail
from pgrun.errors import PgrunError

_VIEW = (
    "select left(run_id::text, 13) || '…' as run_id, name, status, attempt, waited, duration from pgrun.runs order by 1"
)


def demo(
    delay: Annotated[float, typer.Option(min=0, help="Seconds the local model server thinks before it answers.")] = 0.5,
) -> None:
    """Run an example end to end: a private Postgres, a worker in a second process, typed answers without polling.

    With OPENAI_API_KEY set the answers come from OpenAI, and cost a little; else from a server on this machine that makes
    them up.
    """
    try:
        with ExitStack() as stack:
            environment = _model(stack, delay)
            psql = _database(stack, environment)
            stack.enter_context(_worker(environment))
            _say("a program in another process submits background runs and awaits their answers")
            program = subprocess.run([sys.executable, "-m", "pgrun.cli._demo_program"], env=environment, check=False)
            if program.returncode == 0:
                _look(psql, environment)
    except PgrunError as error:
        fail(error)
    raise typer.Exit(program.returncode)


def _model(stack: ExitStack, delay: float) -> dict[str, str]:
    """The environment of all processes of the demo, in which the openai client finds a model."""
    if os.environ.get("OPENAI_API_KEY"):
        _say("OPENAI_API_KEY is set: answers come from OpenAI")
        return {**os.environ}
    from pgrun.testing import ModelServer

    server = stack.enter_context(ModelServer(delay=delay))
    _say(f"a model server on this machine makes answers up: {server.base_url}")
    return {**os.environ, **server.environ}


def _database(stack: ExitStack, environment: dict[str, str]) -> list[str]:
    """Starts a Postgres that is gone afterwards; returns the command that opens psql on it."""
    from pgrun.db.embedded import EmbeddedPostgres

    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgrun-demo-", ignore_cleanup_errors=True)))
    server = stack.enter_context(EmbeddedPostgres(directory / "postgres"))
    environment["PGRUN_DATABASE_URL"] = f"embedded:{directory / 'postgres'}"
    _say(f"a private Postgres runs on demand: {environment['PGRUN_DATABASE_URL']}")
    _run("migrate", environment)
    own = server.bin / "psql"
    psql = str(own) if own.exists() else shutil.which("psql")
    return [psql, server.conninfo] if psql else []


@contextmanager
def _worker(environment: dict[str, str]) -> Iterator[None]:
    _say("a worker, in a process that has none of the program's code: pgrun worker")
    worker = subprocess.Popen([sys.executable, "-m", "pgrun", "worker", "--log-level", "warning"], env=environment)
    try:
        yield
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait()


def _look(psql: list[str], environment: dict[str, str]) -> None:
    if psql:
        _say(f"what psql shows: {_VIEW}")
        subprocess.run([*psql, "-X", "-P", "pager=off", "-c", _VIEW], check=False)
    else:
        _say("what the table shows: pgrun ls")
        _run("ls", environment)


def _run(command: str, environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-m", "pgrun", command], env=environment, check=True)


def _say(text: str) -> None:
    typer.secho(f"\n▸ {text}", bold=True)
    sys.stdout.flush()
