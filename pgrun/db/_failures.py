"""What a failed statement means: worth repeating or not, and in which of our words the caller hears of it."""

import re

import psycopg
from psycopg import errors as pg

from pgrun.errors import (
    DatabaseError,
    DatabaseUnavailable,
    PgrunError,
    RunEnded,
    RunNotFound,
    SchemaMismatch,
    SessionBusy,
    UsageError,
)

# The server is there but not for us now: shutting down, starting, demoted by a failover, out of connections; or it
# chose our statement to break a deadlock.
_PASSING = (
    pg.AdminShutdown,
    pg.CrashShutdown,
    pg.CannotConnectNow,
    pg.ReadOnlySqlTransaction,
    pg.TooManyConnections,
    pg.DeadlockDetected,
    pg.SerializationFailure,
    TimeoutError,
    OSError,
)
_SCHEMA_MISSING = (pg.UndefinedTable, pg.InvalidSchemaName, pg.UndefinedColumn, pg.UndefinedFunction)
# A refused connection carries no SQLSTATE, only the server's text: these say that waiting will not help.
_FINAL_WORDS = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
    "not permitted to log in",
)


def is_passing(error: BaseException) -> bool:
    """Whether the same statement may succeed when it is repeated on another connection a little later."""
    if isinstance(error, _PASSING):
        return True
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:  # the connection failed or broke
        return not any(words in str(error) for words in _FINAL_WORDS)
    return False


def translated(error: BaseException, shown: str) -> PgrunError:
    """The error that the caller gets; `shown` names the database without its password."""
    words = _first_line(error)
    match error:
        case PgrunError():
            return error
        case psycopg.Error(sqlstate="PGR01"):
            return RunNotFound(words, run_id=words.removeprefix("no run ").removesuffix(" exists"))
        case psycopg.Error(sqlstate="PGR02"):
            hint = error.diag.message_hint
            return UsageError(f"{words}. {hint}" if hint else words)
        case psycopg.Error(sqlstate="PGR03"):
            return SessionBusy(
                words, **_named(r'session "(?P<session_id>.*)" is busy: its run (?P<run_id>\S+) is', words)
            )
        case psycopg.Error(sqlstate="PGR04"):
            return RunEnded(words, **_named(r"run (?P<run_id>\S+) has ended", words))
        case pg.InsufficientPrivilege():
            return DatabaseError(f"{shown}: {words}. Connect as a role that may, or have an owner run: pgrun migrate")
        case psycopg.DataError():
            return UsageError(f"the database does not accept a value: {words}")
        case _ if isinstance(error, _SCHEMA_MISSING):
            return SchemaMismatch(f"{shown}: {words}. Run: pgrun migrate")
        case _ if is_passing(error):
            return DatabaseUnavailable(f"{shown} is not available: {words}. Is it running, and is the address right?")
        case psycopg.OperationalError(sqlstate=None):
            return DatabaseError(f"{shown} does not let us in: {words}. Check user, password and database in the URL")
        case _:
            return DatabaseError(f"{shown}: {words}")


def _named(pattern: str, words: str) -> dict[str, str]:
    """What a message of ours speaks of."""
    match = re.match(pattern, words, re.DOTALL)
    assert match is not None, words
    return match.groupdict()


def _first_line(error: BaseException) -> str:
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return error.diag.message_primary
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
