"""Two sessions of the database at once: one does something in a thread and waits for the other, which the test moves on."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import psycopg
from psycopg.rows import dict_row

from support.database import Conn
from support.rows import Row
from support.tables import perform

P = ParamSpec("P")
T = TypeVar("T")


def until(condition: Callable[[], object], *, within: float = 10.0) -> None:
    """Returns as soon as the condition holds; fails after `within` seconds. Only for what announces itself in no other way."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within:g} s"
        time.sleep(0.005)


class Rival:
    """A second session, whose statements run in a thread."""

    def __init__(self, conn: Conn, thread: ThreadPoolExecutor) -> None:
        self._conn = conn
        self._thread = thread

    def call(self, function: Callable[Concatenate[Conn, P], T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Starts a function with this session's connection as its first argument."""
        return self._thread.submit(function, self._conn, *args, **kwargs)

    def perform(self, name: str, /, **params: Any) -> "Future[list[Row]]":
        """Starts a statement of `sql/queries`."""
        return self.call(perform, name, **params)

    def until_blocked_by(self, conn: Conn) -> None:
        """Returns as soon as its statement waits for a lock that the session of `conn` holds."""
        pids = [conn.info.backend_pid, self._conn.info.backend_pid]

        def blocks() -> bool:
            row = conn.execute("select %s = any (pg_blocking_pids(%s)) as blocks", pids).fetchone()
            return row is not None and bool(row["blocks"])

        until(blocks)


@contextmanager
def rival(dsn: str) -> Iterator[Rival]:
    """A second session; what it still does at the end is cancelled, so that a failed test does not wait for it."""
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as conn, ThreadPoolExecutor(1) as thread:
        try:
            yield Rival(conn, thread)
        finally:
            conn.cancel_safe()
