"""What breaks: processes that can be killed, and a network that can be cut."""

import os
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from support.netfault import Proxy
from support.processes import Processes

from pgrun import PostgresDb
from pgrun._sync import run_sync
from pgrun.db.embedded import EmbeddedPostgres
from pgrun.db.embedded._locks import is_locked
from pgrun.testing import ModelServer

_names = count()


@pytest.fixture
def processes(dsn: str, models: ModelServer) -> Iterator[Processes]:
    """Starts workers and programs that know the database and the models of this test."""
    with Processes(dsn, models.environ) as started:
        yield started


@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    """A network before the database that fails on command."""
    with Proxy(dsn) as forwarding:
        yield forwarding


@pytest.fixture(scope="session")
def own_server() -> Iterator[EmbeddedPostgres]:
    """A server that nobody else uses, so that it can be restarted."""
    # Not in pytest's directory, which the account that runs the server for root may not enter.
    with tempfile.TemporaryDirectory(prefix="pgrun-restarted-") as directory:
        os.chmod(directory, 0o711)
        postgres = EmbeddedPostgres(Path(directory) / "postgres", settings={"fsync": "off"})
        with postgres:
            yield postgres
        while is_locked(postgres.directory / "watchdog.lock"):  # it goes in the background, and still writes
            time.sleep(0.01)


@pytest.fixture
def own_dsn(own_server: EmbeddedPostgres) -> str:
    """Conninfo of a fresh database with pgrun's schema on that server."""
    name = f"pgrun_test_{next(_names)}"
    with psycopg.connect(own_server.conninfo, autocommit=True) as connection:
        connection.execute(f"create database {name}".encode())
    dsn = make_conninfo(own_server.conninfo, dbname=name)
    run_sync(PostgresDb(dsn, worker="external").amigrate)
    return dsn
