"""Connections that callers lend us, so that a run is stored in their transaction or not at all: psycopg's and SQLAlchemy's.

Nothing is committed, rolled back or repeated here: that is theirs. A statement that the database refuses leaves their
transaction failed, as one of their own would. SQLAlchemy is recognised by the names of its classes and never imported;
statements go through it, and not past it to the driver, or it would not know that there is something to commit.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import anyio.to_thread
import psycopg
from psycopg.rows import tuple_row

from pgrun._sync import serves_sync_callers
from pgrun.db._failures import translated
from pgrun.db._shielding import to_its_end
from pgrun.db.statements import statement
from pgrun.errors import UsageError

Params = Mapping[str, Any]
Rows = list[tuple[Any, ...]]

_WANTED = "a connection of psycopg, or a Session or Connection of SQLAlchemy with the driver psycopg"
_DRIVERS = ("psycopg", "psycopg_async")


class Lent:
    """A connection of somebody else, for a statement or two; else as `Runtime`.

    Args:
        conn: The connection.
        schema: Schema of pgrun's tables.
        shown: The database's name in messages.

    Raises:
        UsageError: It is no connection that we know, or cannot be used from where the caller is.
    """

    def __init__(self, conn: Any, *, schema: str, shown: str) -> None:
        self._execute = _executing(conn)
        self._schema = schema
        self._shown = shown

    async def fetch_tuples(self, name: str, params: Params) -> Rows:
        """Executes ``sql/queries/<name>.sql``, which returns rows, in whatever transaction there is; a cancellation waits for it.

        Raises:
            PgrunError: What the database said, in our words.
        """
        try:
            return await to_its_end(self._execute(statement(name, self._schema), params))
        except Exception as error:
            cause = getattr(error, "orig", None) or error  # SQLAlchemy's errors carry the driver's
            if not isinstance(cause, psycopg.Error):
                raise
            raise translated(cause, self._shown) from error


def _executing(conn: Any) -> Callable[[str, Params], Any]:
    """What executes statements on this connection, from the event loop or, for a synchronous one, from a thread beside it."""
    match conn:
        case psycopg.AsyncConnection():
            return _from_loop(conn, partial(_on_async_psycopg, conn))
        case psycopg.Connection():
            return _from_thread(conn, partial(_on_psycopg, conn))
    classes = {f"{each.__module__.partition('.')[0]}.{each.__name__}" for each in type(conn).__mro__}
    if classes & {"sqlalchemy.AsyncSession", "sqlalchemy.AsyncConnection"}:
        return _from_loop(conn, partial(_on_async_alchemy, conn))
    if classes & {"sqlalchemy.Session", "sqlalchemy.Connection"}:
        return _from_thread(conn, partial(_on_alchemy, conn))
    if classes & {"sqlalchemy.scoped_session", "sqlalchemy.async_scoped_session"}:
        raise UsageError("conn= is a registry of sessions; give the session itself, conn=sessions()")
    raise UsageError(f"conn={conn!r:.100}: {_WANTED}")


def _from_loop(
    conn: Any, execute: Callable[[str, Params], Awaitable[Rows]]
) -> Callable[[str, Params], Awaitable[Rows]]:
    if serves_sync_callers():
        raise UsageError(
            f"conn= is asynchronous ({_name(conn)}): await the method with the a, in the event loop of that connection"
        )
    return execute


def _from_thread(conn: Any, execute: Callable[[str, Params], Rows]) -> Callable[[str, Params], Awaitable[Rows]]:
    if not serves_sync_callers():
        raise UsageError(
            f"conn= is synchronous ({_name(conn)}) and would block the event loop: use an asynchronous one, or the "
            "method without the a where no event loop runs"
        )
    # Not on the loop that serves all synchronous callers: a statement may wait for a lock. The lender waits meanwhile.
    return lambda sql, params: anyio.to_thread.run_sync(execute, sql, params)


async def _on_async_psycopg(conn: psycopg.AsyncConnection[Any], sql: str, params: Params) -> Rows:
    # Not conn.cursor(): theirs may have another class or row factory. In a pipeline only fetchall() waits for the answer.
    cursor = psycopg.AsyncCursor(conn, row_factory=tuple_row)
    await cursor.execute(sql.encode(), params)
    return await cursor.fetchall()


def _on_psycopg(conn: psycopg.Connection[Any], sql: str, params: Params) -> Rows:
    cursor = psycopg.Cursor(conn, row_factory=tuple_row)
    cursor.execute(sql.encode(), params)
    return cursor.fetchall()


async def _on_async_alchemy(conn: Any, sql: str, params: Params) -> Rows:
    connection = await conn.connection() if _is_session(conn) else conn
    _check_driver(connection)
    result = await connection.exec_driver_sql(sql, params)
    return [tuple(row) for row in result.fetchall()]


def _on_alchemy(conn: Any, sql: str, params: Params) -> Rows:
    connection = conn.connection() if _is_session(conn) else conn
    _check_driver(connection)
    return [tuple(row) for row in connection.exec_driver_sql(sql, params).fetchall()]


def _is_session(conn: Any) -> bool:
    return any(each.__name__ in ("Session", "AsyncSession") for each in type(conn).__mro__)


def _check_driver(connection: Any) -> None:
    dialect = connection.dialect
    if dialect.name != "postgresql" or dialect.driver not in _DRIVERS:
        raise UsageError(f"conn= is of {dialect.name}+{dialect.driver}; give {_WANTED} (postgresql+psycopg://…)")


def _name(conn: Any) -> str:
    return f"{type(conn).__module__.partition('.')[0]}.{type(conn).__name__}"
