"""Where the database is: every form of URL that users write, made one conninfo that libpq understands."""

import os
import re
from dataclasses import dataclass, field

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgrun.errors import UsageError

# A dead network is noticed within about five seconds, also while nothing is sent, instead of libpq's two hours.
_DEFAULTS: dict[str, str | int] = {
    "application_name": "pgrun",
    "connect_timeout": 10,
    "tcp_user_timeout": 5000,
    "keepalives_idle": 5,
    "keepalives_interval": 1,
    "keepalives_count": 3,
}
_EXAMPLE = "write postgresql://user:password@host:5432/database, or libpq's host=… dbname=…"


@dataclass(frozen=True)
class Address:
    """A database one can connect to.

    Attributes:
        conninfo: For libpq, defaults filled in. Holds the password: never show it.
        shown: The same for people: host, port, database and user.
    """

    conninfo: str = field(repr=False)
    shown: str


def parse_url(url: str) -> Address:
    """Understands postgresql:// and postgres://, SQLAlchemy's postgresql+driver://, libpq's "host=… dbname=…", several hosts.

    Raises:
        UsageError: It is none of these; the message never repeats a password.
    """
    plain = re.sub(r"^postgres(ql)?\+\w+://", "postgresql://", url.strip())
    _refuse_spilled_password(plain)
    try:
        given = conninfo_to_dict(plain)
    except psycopg.ProgrammingError as error:
        reason = f" ({error})".replace("\n", "") if _harmless(error, plain) else ""
        raise UsageError(f"the database URL cannot be understood{reason}; {_EXAMPLE}") from None
    if not plain or not given:
        raise UsageError(f"the database URL is empty; {_EXAMPLE}")
    # Of several hosts only the one that accepts writes can serve a queue; after a failover that is another one.
    several = "," in str(given.get("host") or given.get("hostaddr"))
    defaults = {**_DEFAULTS, "target_session_attrs": "read-write"} if several else _DEFAULTS
    chosen = {key: value for key, value in given.items() if value is not None}
    return Address(make_conninfo("", **{**defaults, **chosen}), _shown(given))


def url_from_environment(*names: str) -> str:
    """The first of these environment variables that is set.

    Raises:
        UsageError: None is.
    """
    for name in names:
        if url := os.environ.get(name):
            return url
    raise UsageError(
        f"no database URL: pass one, or set ${names[0]}, for example postgresql://user:password@localhost:5432/app; "
        '"embedded:" starts a private Postgres'
    )


def _refuse_spilled_password(url: str) -> None:
    """Refuses what libpq would misread: it ends the password at the first @ or /, and the rest became a host that is shown."""
    if re.match(r"postgres(ql)?://[^?]*[@/][^?]*@", url):
        raise UsageError("the database URL has an @ or / in its password: write them as %40 and %2F")


def _harmless(error: Exception, url: str) -> bool:
    """Whether libpq's message may be shown: it likes to repeat parts of the URL, which may hold the password."""
    return "@" not in url and "password" not in url and "password" not in str(error)


def _shown(given: dict[str, str | int | None]) -> str:
    host = given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST") or "local socket"
    port = given.get("port") or os.environ.get("PGPORT") or 5432
    user = given.get("user") or os.environ.get("PGUSER") or "default user"
    dbname = given.get("dbname") or os.environ.get("PGDATABASE") or user
    return f'database "{dbname}" at {host} port {port} as {user}'
