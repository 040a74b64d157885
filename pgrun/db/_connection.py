"""Connections outside the pool: the listener's, the heartbeat's, and those that are used once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import psycopg
from psycopg.rows import dict_row

from pgrun.db._address import Address

Row = dict[str, Any]
Connection = psycopg.AsyncConnection[Row]


@asynccontextmanager
async def connection(address: Address, *, within: float | None = None) -> AsyncIterator[Connection]:
    """A connection in autocommit that gives dicts, made `within` so many seconds, and closed whatever happens.

    Raises what psycopg raises. Not ``async with conn``: that begins to leave with a rollback, and a cancelled task would
    not get past it to the close.
    """
    with anyio.fail_after(within):
        conn = await psycopg.AsyncConnection.connect(
            address.conninfo, autocommit=True, row_factory=dict_row, prepare_threshold=None
        )
    try:
        yield conn
    finally:
        with anyio.CancelScope(shield=True):
            await conn.close()
