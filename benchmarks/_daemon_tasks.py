"""Declares the tasks of the benchmarks in a daemon: ``pgrun worker --import _daemon_tasks``, with $PGRUN_DATABASE_URL set."""

from _tasks import nap, noop, stamp

from pgrun import PostgresDb

_db = PostgresDb(worker="external")
for _function in (nap, noop, stamp):
    _db.task(_function)
