"""What may lie in the table beside the runs that are measured: each kind of it made by the server itself, in chunks."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import psycopg
from psycopg import sql

DAYS = 30
"""Over so many the ends of finished runs are spread."""

_CHUNK = 100_000  # rows per statement
_CLAIM = 1_000  # of those that have ended: as many as a worker claims and finishes together
_BYTES = 1000  # of a finished run with its index entries, generously
_WAL = 6_000_000_000  # bytes that the log may take meanwhile

_WAITING = """insert into pgrun.jobs (kind, name, queue, priority, due_at, created_at, input)
              select 'task', 'noop', {queue}, {priority}, {due_at}, least({due_at}, now()),
                     jsonb_build_object('number', n, 'text', repeat(md5(n::text), 5))
                from generate_series(%(first)s::bigint, %(last)s) n"""
_CLAIMED = """update pgrun.jobs
                 set status = 'running', attempt = 1, fence = 1, worker_id = '00000000-0000-7000-8000-000000000000',
                     started_at = created_at + interval '5 ms'
               where queue = 'default' and priority = 0 and due_at <= now()
                 and status = 'pending' and held is null and concurrency_key is null"""
_FINISHED = """update pgrun.jobs
                  set status = 'completed', output = input -> 'number', metrics = jsonb_build_object('duration', 0.01),
                      finished_at = created_at + interval '15 ms'
                where worker_id = '00000000-0000-7000-8000-000000000000' and status = 'running'"""


def _waiting(queue: str, priority: int, due_at: str) -> sql.Composed:
    return sql.SQL(_WAITING).format(queue=queue, priority=priority, due_at=sql.SQL(due_at))


@dataclass(frozen=True)
class _Kind:
    """How so many rows of a kind are made at once: each in the way in which it would have come to be what it is.

    Rows that were inserted as ended ones would leave other gaps in their pages than those that grew while they were executed, and
    what is submitted later would go into these gaps, one to a page.
    """

    rows: int
    statements: Sequence[sql.SQL | sql.Composed]


_KINDS = {
    "elsewhere": _Kind(_CHUNK, [_waiting("elsewhere", 0, "now()")]),
    "behind": _Kind(_CHUNK, [_waiting("default", 1, "now()")]),
    "scheduled": _Kind(_CHUNK, [_waiting("default", 0, "now() + interval '1 day' + n * interval '1 ms'")]),
    "finished": _Kind(
        _CLAIM,
        [
            _waiting("default", 0, f"now() - interval '{DAYS} days' * (1 - n::float8 / %(rows)s)"),
            sql.SQL(_CLAIMED),
            sql.SQL(_FINISHED),
        ],
    ),
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
            for name, rows in asdict(self).items():
                kind = _KINDS[name]
                for first in range(0, rows, kind.rows):
                    given = {"first": first, "last": min(first + kind.rows, rows) - 1, "rows": rows}
                    for each in kind.statements:
                        conn.execute(each, given)


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
