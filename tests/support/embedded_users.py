"""What the tests of the embedded Postgres share: processes that use a server, and ways to wait for what they did."""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psycopg

from pgrun.db.embedded import EmbeddedPostgres
from pgrun.db.embedded._locks import is_locked

AS_ROOT = os.geteuid() == 0
FAST = {"fsync": "off"}

_PROGRAM = """
import os, subprocess, sys
from pgrun.db.embedded import EmbeddedPostgres
server = EmbeddedPostgres(sys.argv[1], settings={"fsync": "off"})
server.acquire()
"""
_STAY = """
os.write(1, b"ready\\n")
sys.stdin.read()
"""


class User:
    """A process that uses a server until it is told to leave or killed; `doing` runs once it has the server."""

    def __init__(self, directory: Path, *, doing: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM + doing + _STAY, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def ready(self) -> "User":
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"
        return self

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=10)

    def leave(self) -> bytes:
        """End orderly; returns what it printed after it was ready."""
        return self.process.communicate(timeout=10)[0]


def until(condition: Callable[[], bool], *, within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def lock_owner(path: Path) -> int:
    """The process id that stands in watchdog.lock or server.lock."""
    return int(path.read_text())


def is_alive(pid: int) -> bool:
    """Tell whether the process runs; a zombie does not (process 1 may be slow to reap)."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def is_gone(directory: Path) -> bool:
    locks = directory / "watchdog.lock", directory / "server.lock"
    return not any(is_locked(lock) for lock in locks)


def socket_directory(server: EmbeddedPostgres) -> Path:
    return Path(str(psycopg.conninfo.conninfo_to_dict(server.conninfo)["host"]))


def value_of(server: EmbeddedPostgres, query: str) -> object:
    with psycopg.connect(server.conninfo) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def execute(server: EmbeddedPostgres, statement: str) -> None:
    with psycopg.connect(server.conninfo) as connection:
        connection.execute(statement.encode())


@contextmanager
def shared_place() -> Iterator[Path]:
    """A directory that has been used before, by other tests too: a start in it takes a tenth of one in a new place."""
    directory = _shared_directory()
    (directory / "server.log").unlink(missing_ok=True)
    with _left_behind_empty(directory):
        yield directory


@contextmanager
def fresh_place() -> Iterator[Path]:
    """A directory that does not exist yet; any user can reach where it will be."""
    parent = _open_to_all()
    try:
        with _left_behind_empty(parent / "pg"):
            yield parent / "pg"
    finally:
        shutil.rmtree(parent)


@contextmanager
def _left_behind_empty(directory: Path) -> Iterator[None]:
    try:
        yield
        until(lambda: is_gone(directory))
    finally:
        # After a failed test there may be a server that nobody stops.
        with suppress(OSError, ValueError):
            if is_locked(directory / "watchdog.lock"):
                os.kill(lock_owner(directory / "watchdog.lock"), signal.SIGTERM)
                until(lambda: is_gone(directory))


def _open_to_all() -> Path:
    path = Path(tempfile.mkdtemp(prefix="pgrun-", dir="/tmp"))
    path.chmod(0o711)
    return path


@cache
def _shared_directory() -> Path:
    parent = _open_to_all()
    atexit.register(shutil.rmtree, parent)
    with EmbeddedPostgres(parent / "pg", settings=FAST):
        pass
    until(lambda: is_gone(parent / "pg"))
    return parent / "pg"
