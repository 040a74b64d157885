"""What the benchmarks share: their options, a server to measure on, databases of their own in it, and a worker process."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import anyio
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgrun import PostgresDb
from pgrun.db.embedded import EmbeddedPostgres

TASKS = ("--import", "_daemon_tasks")
"""Options with which `worker` executes the functions of `_tasks`."""

_IMPORTS = 2.0  # seconds within which a worker that serves already has imported the client of the provider

_numbers = count()


def parser(description: str | None) -> argparse.ArgumentParser:
    """Takes the options that all benchmarks have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", help="also write the figures there")
    made.add_argument("--database-url", help="measure on this server; by default on a private one")
    return made


@contextmanager
def server(given: str | None) -> Iterator[str]:
    """Conninfo of a server with its durability on: the given one, or a private one with its defaults."""
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="pgrun-bench-", ignore_cleanup_errors=True) as directory:
        os.chmod(directory, 0o711)  # the account that runs the server for root must get through
        with EmbeddedPostgres(
            directory + "/postgres", settings={"max_wal_size": "4GB", "shared_buffers": "1GB"}
        ) as own:
            yield own.conninfo


@contextmanager
def database(on: str) -> Iterator[str]:
    """Conninfo of a database with nothing but pgrun's empty tables, gone afterwards."""
    name = f"pgrun_bench_{os.getpid()}_{next(_numbers)}"
    drop = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
    with psycopg.connect(on, autocommit=True) as admin:
        admin.execute(drop)
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    url = make_conninfo(on, dbname=name)
    try:
        anyio.run(PostgresDb(url, worker="external").amigrate)
        yield url
    finally:
        with suppress(psycopg.OperationalError), psycopg.connect(on, autocommit=True) as admin:
            admin.execute(drop)


def settle(url: str) -> None:
    """So that no measurement pays for what happened before it."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("vacuum analyze pgrun.jobs")
        conn.execute("checkpoint")


@contextmanager
def worker(
    url: str, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A daemon in a process of its own."""
    command = [sys.executable, "-m", "pgrun", "worker", "--log-level", "warning", *options]
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"PGRUN_DATABASE_URL": url, "PYTHONPATH": path}
    process = subprocess.Popen(command, env={**os.environ, **(environment or {}), **own})
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def await_workers(url: str, workers: int = 1) -> None:
    """Returns when so many serve and have come to rest: a new one is still busy with imports when it begins to claim."""
    with psycopg.connect(url, autocommit=True) as conn:
        while conn.execute("select from pgrun.workers where stopped_at is null").rowcount < workers:
            time.sleep(0.1)
    time.sleep(_IMPORTS)
