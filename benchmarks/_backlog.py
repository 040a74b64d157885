"""What may lie in the table beside the runs that are measured: each kind of it made by the server itself, in chunks."""

import shutil
import tempfile
from dataclasses import asdict, dataclass

import psycopg
from psycopg import sql

_CHUNK = 100_000  # rows per statement
_BYTES = 800  # of a finished run with its index entries, generously
_WAL = 6_000_000_000  # bytes that the log may take meanwhile

_WAITING = """insert into pgrun.jobs (kind, name, queue, priority, due_at, input)
              select 'task', 'noop', {queue}, {priority}, {due_at},
                     jsonb_build_object('number', n, 'text', repeat(md5(n::text), 5))
                from generate_series(%(first)s::bigint, %(last)s) n"""
_FINISHED = """insert into pgrun.jobs (kind, name, queue, status, attempt, fence, worker_id, input, output, metrics,
                                       due_at, created_at, started_at, finished_at)
               select 'task', 'noop', 'default', 'completed', 1, 1, '00000000-0000-7000-8000-000000000000',
                      jsonb_build_object('number', n, 'text', repeat(md5(n::text), 5)), to_jsonb(n),
                      jsonb_build_object('duration', 0.01), at, at, at + interval '5 ms', at + interval '15 ms'
                 from generate_series(%(first)s::bigint, %(last)s) n,
                      lateral (select now() - interval '30 days' + n * interval '30 days' / %(rows)s) moment (at)"""


def _waiting(queue: str, priority: int, due_at: str) -> sql.Composed:
    return sql.SQL(_WAITING).format(queue=queue, priority=priority, due_at=sql.SQL(due_at))


_STATEMENTS: dict[str, sql.SQL | sql.Composed] = {
    "elsewhere": _waiting("elsewhere", 0, "now()"),
    "behind": _waiting("default", 1, "now()"),
    "scheduled": _waiting("default", 0, "now() + interval '1 day' + n * interval '1 ms'"),
    "finished": sql.SQL(_FINISHED),
}


@dataclass(frozen=True)
class Backlog:
    """So many runs of each kind, with inputs of about 200 bytes."""

    elsewhere: int = 0
    """Wait in another queue."""
    behind: int = 0
    """Wait in the same queue, at a lower priority."""
    scheduled: int = 0
    """Are due tomorrow and later."""
    finished: int = 0
    """Have ended within the last thirty days."""

    @property
    def rows(self) -> int:
        """All of them."""
        return self.elsewhere + self.behind + self.scheduled + self.finished

    @property
    def disk(self) -> int:
        """Bytes that it may need, generously."""
        return _WAL + _BYTES * self.rows

    def put_into(self, url: str) -> None:
        """Adds it to a database."""
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("insert into pgrun.queues (queue) values ('elsewhere') on conflict do nothing")
            for kind, rows in asdict(self).items():
                for first in range(0, rows, _CHUNK):
                    given = {"first": first, "last": min(first + _CHUNK, rows) - 1, "rows": rows}
                    conn.execute(_STATEMENTS[kind], given)


def free_disk() -> int:
    """Bytes that are free where private servers keep their data."""
    return shutil.disk_usage(tempfile.gettempdir()).free


def sizes(url: str) -> dict[str, float]:
    """Megabytes of the table of jobs and of each of its indexes."""
    with psycopg.connect(url) as conn:
        rows = conn.execute(
            """select 'jobs', pg_table_size('pgrun.jobs')
               union all
               select indexrelid::regclass::name, pg_relation_size(indexrelid) from pg_index
                where indrelid = 'pgrun.jobs'::regclass order by 1"""
        ).fetchall()
    return {name.rpartition(".")[2]: round(size / 1e6, 1) for name, size in rows}
