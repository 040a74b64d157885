"""The SQL of pgrun: reads the files of `sql/` and makes them statements for psycopg.

The files run in psql as they stand: ``:'name'`` is a variable there and becomes a parameter here; `pgrun`, the name of
the schema, gives way to the configured one.
"""

import re
from functools import cache
from pathlib import Path

from pgrun.errors import UsageError

_PACKAGE = Path(__file__).parent.parent
_SCHEMA = re.compile(
    r"[a-z_][a-z0-9_]{0,39}"
)  # short enough for a channel: "<schema>_cancel" is an identifier of at most 63


def sql_dir() -> Path:
    """The directory with `migrations/` and `queries/`: inside the installed package, beside it in a checkout."""
    installed = _PACKAGE / "sql"
    return installed if installed.is_dir() else _PACKAGE.parent / "sql"


@cache
def statement(name: str, schema: str) -> str:
    """The statement ``sql/queries/<name>.sql`` with psycopg parameters, for the given schema."""
    text = (sql_dir() / "queries" / f"{name}.sql").read_text(encoding="utf-8")
    code = "\n".join(line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("--"))
    code = re.sub(r":'(\w+)'", r"%(\1)s", code.replace("%", "%%"))
    # The comment is what people see in pg_stat_activity and pg_stat_statements.
    return f"/* pgrun {name} */ {in_schema(code, schema)}".rstrip().rstrip(";")


def in_schema(sql: str, schema: str) -> str:
    """The same SQL for another schema: qualified names, and the channels and roles that begin with the schema's name."""
    if schema == "pgrun":
        return sql
    return re.sub(r"\bpgrun_", f"{schema}_", re.sub(r"\bpgrun\b", f'"{schema}"', sql))


def check_schema(schema: str) -> str:
    """Returns the name if it can be a schema of pgrun, else raises `UsageError`."""
    if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
        raise UsageError(
            f"schema {schema!r}: use up to 40 lower-case letters, digits and underscores, not beginning with a digit or pg_"
        )
    return schema
