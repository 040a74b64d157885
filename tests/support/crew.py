"""Many sessions of the database at once: threads, each with a connection of its own."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

import psycopg
from psycopg.rows import dict_row

from support.database import Conn

P = ParamSpec("P")
T = TypeVar("T")


class Crew:
    """Starts functions whose first argument is a connection."""

    def __init__(self, dsn: str, threads: ThreadPoolExecutor) -> None:
        self._dsn = dsn
        self._threads = threads

    def start(self, function: Callable[Concatenate[Conn, P], T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Calls it in a thread of its own."""

        def work() -> T:
            with psycopg.connect(self._dsn, autocommit=True, row_factory=dict_row) as conn:
                return function(conn, *args, **kwargs)

        return self._threads.submit(work)


@contextmanager
def crew(dsn: str) -> Iterator[Crew]:
    """Threads that have all ended when the block ends; the functions see to that by a deadline of their own."""
    with ThreadPoolExecutor(50) as threads:
        yield Crew(dsn, threads)
