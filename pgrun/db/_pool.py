"""The connections that an event loop keeps open, and what is arranged with each of them."""

import logging

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from pgrun.db._address import Address
from pgrun.db._connection import Connection
from pgrun.db.statements import statement
from pgrun.settings import Settings

_RETRY = 1.0  # seconds between attempts to connect while the database is away

_log = logging.getLogger("pgrun.db")


def make_pool(address: Address, settings: Settings, *, prepares: bool) -> AsyncConnectionPool[Connection]:
    """A pool that is not open yet; with `prepares` its connections keep prepared statements and their plans."""
    return AsyncConnectionPool(
        address.conninfo,
        kwargs={
            "autocommit": True,
            "row_factory": dict_row,
            # Behind a transaction pooler the next statement may run where the PREPARE was never seen.
            "prepare_threshold": 0 if prepares else None,
        },
        min_size=1,
        max_size=settings.pool_size,
        open=False,
        # To its place in the queue until the deadline: whoever gives up earlier would have to queue up again.
        timeout=settings.statement_timeout,
        # The pool tries again after twice as long each time, and would still rest when the database has long been back.
        reconnect_timeout=_RETRY,
        reconnect_failed=AsyncConnectionPool.check,  # which lets it begin anew
        num_workers=1,
        name="pgrun",
        configure=_keep_plans if prepares else _tell_notices,
    )


async def is_direct(conn: Connection) -> bool:
    """Whether no pooler stands between: PgBouncer gives its clients a backend pid of its own making."""
    cursor = await conn.execute("select pg_backend_pid() as pid")
    row = await cursor.fetchone()
    return row is not None and row["pid"] == conn.info.backend_pid


async def _keep_plans(conn: Connection) -> None:
    await _tell_notices(conn)
    await conn.execute(statement("keep_plans", "pgrun"))


async def _tell_notices(conn: Connection) -> None:
    """What SQL functions warn about is logged."""
    conn.add_notice_handler(_log_notice)


def _log_notice(notice: psycopg.errors.Diagnostic) -> None:
    if notice.severity_nonlocalized == "WARNING":
        hint = f" {notice.message_hint}" if notice.message_hint else ""
        _log.warning("%s.%s", notice.message_primary, hint)
