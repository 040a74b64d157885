"""The least that a queue with results can be: four statements over one small table, by psycopg alone.

A client inserts and notifies; a worker in a process of its own listens, claims, and writes the result and notifies; the client
listens and reads. It knows no retries, leases, priorities, or types: it is there to be compared with.
"""

import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

_TABLE = """create table public.bare (
                id bigint generated always as identity primary key, status smallint not null default 0,
                input jsonb not null, output jsonb);
            create index bare_waiting on public.bare (id) where status = 0"""
_SUBMIT = """with inserted as (insert into public.bare (input) values (%s) returning id)
             select id, pg_notify('bare_wake', '') from inserted"""
_CLAIM = """update public.bare set status = 1
             where id = (select id from public.bare where status = 0 order by id limit 1 for update skip locked)
            returning id"""
_FINISH = """with ended as (update public.bare set status = 2, output = %s where id = %s returning id)
             select pg_notify('bare_done', id::text) from ended"""
_READ = "select output from public.bare where id = %s"


class BareClient:
    """Calls what the bare worker executes; blocks meanwhile."""

    def __init__(self, url: str) -> None:
        self._conn = _connect(url)
        self._conn.execute("listen bare_done")

    def call(self) -> tuple[float, float]:
        """Seconds from the submit to the start, and to the result."""
        submitted = time.monotonic()
        run_id, _ = _one(self._conn.execute(_SUBMIT, ["{}"]))
        for _ in self._conn.notifies(timeout=60, stop_after=1):
            pass
        (started,) = _one(self._conn.execute(_READ, [run_id]))
        return started - submitted, time.monotonic() - submitted

    def close(self) -> None:
        self._conn.close()


@contextmanager
def bare_client(url: str) -> Iterator[BareClient]:
    """A client with a worker of its own, in a database that has no bare queue yet."""
    with _connect(url) as conn:
        conn.execute(_TABLE, prepare=False)
    worker = multiprocessing.get_context("spawn").Process(target=_serve, args=[url], daemon=True)
    worker.start()
    client = BareClient(url)
    try:
        yield client
    finally:
        client.close()
        worker.terminate()
        worker.join()


def _serve(url: str) -> None:
    with _connect(url) as conn:
        conn.execute("listen bare_wake")
        while True:
            while claimed := conn.execute(_CLAIM).fetchone():
                conn.execute(_FINISH, [json.dumps(time.monotonic()), claimed[0]])
            for _ in conn.notifies(stop_after=1):
                pass


def _connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url, autocommit=True, prepare_threshold=0)


def _one(cursor: psycopg.Cursor[Any]) -> Any:
    row = cursor.fetchone()
    assert row is not None
    return row
