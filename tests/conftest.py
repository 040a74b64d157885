"""A real Postgres for every test: PGRUN_TEST_DSN, or a private one; a migrated template, copied for each test that asks."""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from support.database import Conn
from support.settings import FAST

from pgrun import PostgresDb, events
from pgrun._agents_here import _registry
from pgrun._sync import run_sync
from pgrun.db.declared import declared_schedules
from pgrun.db.embedded import EmbeddedPostgres
from pgrun.db.embedded._locks import is_locked
from pgrun.task import registered_tasks
from pgrun.testing import ModelServer

# Autovacuum's visits would be counted among the transactions that a test counts; tests of plans analyze by themselves.
_SETTINGS = {"fsync": "off", "max_connections": "300", "shared_buffers": "256MB", "autovacuum": "off"}

_names = count()


def pytest_configure(config: pytest.Config) -> None:
    """One server for all processes of a run: the first decides where, the others inherit it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell does so in the background; tests interrupt programs
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Tests start hundreds of Python processes: without byte code on the disk each would compile all of pgrun for itself.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if "PGRUN_TEST_DSN" not in os.environ and "PGRUN_TEST_DIR" not in os.environ:
        # Not under the home directory, where the account that runs the server for root could not reach it.
        os.environ["PGRUN_TEST_DIR"] = tempfile.mkdtemp(prefix="pgrun-tests-", dir=_memory())
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop("PGRUN_TEST_DIR"), ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is long comes first, in whatever order: else a process ends with it while the others have nothing to do."""
    items.sort(key=lambda item: item.path.relative_to(Path(__file__).parent).parts[0])  # acceptance, faults, …, unit


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Conninfo of a database from which others can be created."""
    if given := os.environ.get("PGRUN_TEST_DSN"):
        yield given
        return
    postgres = EmbeddedPostgres(Path(os.environ["PGRUN_TEST_DIR"]) / "postgres", settings=_SETTINGS)
    postgres.acquire()
    yield postgres.conninfo
    postgres.release()


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[str]:
    """Name of a database with pgrun's schema in it."""
    name = f"pgrun_template_{os.getpid()}"
    _admin(server, "create database {}", name)

    async def migrate() -> None:
        db = PostgresDb(make_conninfo(server, dbname=name), worker="external")
        await db.amigrate()
        await db.aclose()

    run_sync(migrate)
    yield name
    _admin(server, "drop database {} with (force)", name)


@pytest.fixture
def new_database(server: str) -> Iterator[Callable[..., str]]:
    """Makes empty databases and returns their conninfo; they are gone after the test."""
    made: list[str] = []

    def new(template: str = "template0") -> str:
        made.append(f"pgrun_test_{os.getpid()}_{next(_names)}")
        _admin(server, f"create database {{}} template {template}{_strategy(server)}", made[-1])
        return make_conninfo(server, dbname=made[-1])

    yield new
    for name in made:
        _admin(server, "drop database {} with (force)", name)


@pytest.fixture
def dsn(template: str, new_database: Callable[..., str]) -> str:
    """Conninfo of a fresh database with pgrun's schema."""
    return new_database(template)


@pytest.fixture
def conn(dsn: str) -> Iterator[Conn]:
    """A person in psql: a plain connection in autocommit."""
    with psycopg.connect(dsn, autocommit=True, row_factory=psycopg.rows.dict_row) as connection:
        yield connection


@pytest.fixture(scope="session")
def own_server() -> Iterator[EmbeddedPostgres]:
    """A server that nobody else uses: it can be restarted, and what it counts is ours.

    On a shared one a listener also wakes, in a transaction, for what is notified in other databases.
    """
    # Not in pytest's directory, which the account that runs the server for root may not enter.
    with tempfile.TemporaryDirectory(prefix="pgrun-own-", dir=_memory()) as directory:
        os.chmod(directory, 0o711)
        postgres = EmbeddedPostgres(Path(directory) / "postgres", settings=_SETTINGS)
        with postgres:
            yield postgres
        while is_locked(postgres.directory / "watchdog.lock"):  # it goes in the background, and still writes
            time.sleep(0.01)


@pytest.fixture
def own_dsn(own_server: EmbeddedPostgres) -> str:
    """Conninfo of a fresh database with pgrun's schema on that server."""
    name = f"pgrun_test_{next(_names)}"
    _admin(own_server.conninfo, "create database {}", name)
    dsn = make_conninfo(own_server.conninfo, dbname=name)
    run_sync(PostgresDb(dsn, worker="external").amigrate)
    return dsn


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[PostgresDb]:
    """A `PostgresDb` that executes nothing by itself."""
    async with PostgresDb(dsn, worker="external", settings=FAST) as database:
        yield database


@pytest.fixture
def models() -> Iterator[ModelServer]:
    """A model server that answers validly at once unless it is told otherwise; without background mode, as most have none."""
    with ModelServer(background="ignored") as server:
        yield server


@pytest.fixture
def provider() -> Iterator[ModelServer]:
    """The same with background mode, as OpenAI has it."""
    with ModelServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _no_agents_and_tasks_of_other_tests() -> Iterator[None]:
    yield
    _registry.clear()
    registered_tasks().clear()
    declared_schedules().clear()


@pytest.fixture
def heard() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Everything that `events` said during the test, as pairs of name and facts."""
    said: list[tuple[str, dict[str, Any]]] = []
    with events.listening(lambda name, facts: said.append((name, facts))):
        yield said


@pytest.fixture
def anyio_backend() -> str:
    """Pgrun runs on asyncio."""
    return "asyncio"


def _memory() -> str | None:
    """A directory in memory, if there is one with room: on a disk, making and dropping a database takes ten times as long."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK | os.X_OK) and shutil.disk_usage(memory).free > 4 << 30:
        return str(memory)
    return None


def _strategy(server: str) -> str:
    """Copying the files is faster than logging their pages, above all when the database is dropped; new in PostgreSQL 15."""
    with psycopg.connect(server) as connection:
        return " strategy file_copy" if connection.info.server_version >= 150000 else ""


def _admin(server: str, statement: str, name: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
