"""Brings the tables of `sql/migrations` into a database: `pgrun migrate`, or the first use with ``create_schema=True``.

All files that are missing are applied in one transaction under an advisory lock, so a second migration that starts at
the same time waits and then finds nothing to do, and a failure leaves the schema as it was.
"""

from dataclasses import dataclass
from functools import cache

import psycopg
from psycopg import errors as pg

from pgrun.db._connection import Connection
from pgrun.db.statements import in_schema, sql_dir
from pgrun.errors import DatabaseError, SchemaMismatch


@dataclass(frozen=True)
class Migration:
    """One file of `sql/migrations`."""

    number: int
    name: str
    sql: str


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations this pgrun knows, in order."""
    found = []
    for path in sorted((sql_dir() / "migrations").glob("*.sql")):
        number, _, name = path.stem.partition("_")
        found.append(Migration(int(number), name, path.read_text(encoding="utf-8")))
    return tuple(found)


def newest() -> int:
    """The version of the schema that this pgrun works with."""
    return migrations()[-1].number


async def version(conn: Connection, schema: str) -> int:
    """The version of the schema in the database; 0 when there is none."""
    # Asked of the catalogue first: a failed select would spoil the transaction this may run in. Not with to_regclass: it
    # may answer from the session's cache, which does not know yet what a twin has created while we waited for the lock.
    cursor = await conn.execute(
        "select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace "
        "where n.nspname = %s and c.relname = 'migrations') as there",
        [schema],
    )
    row = await cursor.fetchone()
    if row is None or not row["there"]:
        return 0
    cursor = await conn.execute(in_schema("select coalesce(max(number), 0) as number from pgrun.migrations", schema))
    row = await cursor.fetchone()
    assert row is not None
    return int(row["number"])


async def migrate(conn: Connection, schema: str) -> list[Migration]:
    """Applies what is missing and returns it; nothing is missing the second time.

    Raises:
        SchemaMismatch: The schema is newer than this pgrun.
        DatabaseError: The role may not create a schema.
    """
    try:
        async with conn.transaction():
            await conn.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"{schema} migrate"])
            there = await version(conn, schema)
            _refuse_newer(there, schema)
            missing = [migration for migration in migrations() if migration.number > there]
            for migration in missing:
                await _apply(conn, migration, schema)
            return missing
    except pg.InsufficientPrivilege as error:
        user = conn.info.user
        raise DatabaseError(
            f'the role "{user}" may not create the schema "{schema}" ({error.diag.message_primary}). '
            f'Either have someone who may run: pgrun migrate --schema {schema} and then: grant usage on schema "{schema}" '
            f'and rights on its tables to "{user}"; or: grant create on database "{conn.info.dbname}" to "{user}"'
        ) from error


async def check_version(conn: Connection, schema: str, *, create: bool) -> None:
    """Makes sure that the schema is the one this pgrun works with; creates it, if it is missing and `create` is set.

    An older one is never upgraded here: other processes may still work with it.

    Raises:
        SchemaMismatch: It is missing, older or newer; the message says what to do.
    """
    there = await version(conn, schema)
    _refuse_newer(there, schema)
    if there == 0 and create:
        await migrate(conn, schema)
    elif there == 0:
        raise SchemaMismatch(f'the schema "{schema}" has no pgrun tables. Run: pgrun migrate{_option(schema)}')
    elif there < newest():
        raise SchemaMismatch(
            f'the schema "{schema}" is at version {there}, this pgrun needs {newest()}. Run: pgrun migrate{_option(schema)}'
        )


async def _apply(conn: Connection, migration: Migration, schema: str) -> None:
    try:
        await conn.execute(in_schema(migration.sql, schema))
    except pg.InsufficientPrivilege:
        raise
    except psycopg.Error as error:
        raise DatabaseError(
            f"migration {migration.number} ({migration.name}) failed, nothing was changed: {error}"
        ) from error
    record = in_schema("insert into pgrun.migrations (number, name) values (%s, %s)", schema)
    await conn.execute(record, [migration.number, migration.name])


def _refuse_newer(there: int, schema: str) -> None:
    if there > newest():
        raise SchemaMismatch(
            f'the schema "{schema}" is at version {there}, newer than this pgrun, which knows {newest()}. '
            "Upgrade pgrun here: pip install --upgrade pgrun"
        )


def _option(schema: str) -> str:
    return "" if schema == "pgrun" else f" --schema {schema}"
