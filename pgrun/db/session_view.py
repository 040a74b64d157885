"""The view that a program has named with `session_table`: the sessions that it has started."""

import re
from contextlib import suppress

import psycopg

from pgrun.db._connection import Connection
from pgrun.errors import UsageError

# How Postgres says that somebody else has just created the same: it depends on how far both have come.
_TWIN = (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation)


def check_session_table(name: str) -> str:
    """The name itself.

    Raises:
        UsageError: It cannot be that of a view.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", name):
        raise UsageError(
            f"session_table={name!r}: use up to 63 letters, digits and underscores, not beginning with a digit"
        )
    return name


async def make_session_view(conn: Connection, schema: str, session_table: str) -> None:
    """Creates the view, unless it is there or this role may not."""
    name = f'"{schema}"."{session_table}"'
    cursor = await conn.execute("select to_regclass(%s) is null as missing", [name])
    row = await cursor.fetchone()
    if row is None or not row["missing"]:
        return
    view = (
        f"create view {name} as select session_id, last_seq as runs, created_at, updated_at "
        f"from \"{schema}\".sessions where session_table = '{session_table}'"
    )
    # A convenience: without the right to create it, or beside a twin that just did, nothing is missing.
    with suppress(psycopg.errors.InsufficientPrivilege, *_TWIN):
        await conn.execute(view)
