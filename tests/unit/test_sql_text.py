"""SQL lives in `sql/`, where people read and run it; the few statements in Python are listed here, each with its reason."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pgrun

PACKAGE = Path(pgrun.__file__).parent

ALLOWED = {
    (
        "db/_pool.py",
        "select pg_backend_pid()",
    ): "asks the connection about itself, before anything is known of a schema",
    ("db/listener.py", 'listen "'): "psql cannot run it with a variable for the channel",
    ("db/listener.py", "select pg_notify("): "the self-test of LISTEN belongs to the listener, not to the schema",
    ("db/migrations.py", "select pg_advisory_xact_lock("): "before there is a schema",
    ("db/migrations.py", "select exists (select from pg_class"): "before there is a schema",
    ("db/migrations.py", "select coalesce(max(number)"): "in whatever schema may be there, of any version",
    ("db/migrations.py", "insert into pgrun.migrations"): "in the migration's transaction, whatever its version",
    ("db/session_view.py", "select to_regclass("): "looks for a view that the user named",
    ("db/session_view.py", "create view"): "a view that the user named",
    ("run/options.py", "rollback"): "no statement, but what a run does in a busy session",
    ("cli/demo.py", "select left(run_id"): "what a person would type into psql; the demo shows it",
}
"""Where a statement stands, how it begins, and why it is not a file."""

STATEMENT = re.compile(
    r"""\s*( (select|create|alter|drop|grant|revoke|truncate|copy|call|explain)\s
            | insert\s+into\s | update\s+\S+\s+set\s | delete\s+from\s | merge\s+into\s | with\s+\S+\s+as\s
            | (un)?listen\s+["{*] | notify\s+["{] | set\s+\S+\s*(=|to\s) | (begin|commit|rollback);?\s*$ )""",
    re.IGNORECASE | re.VERBOSE,
)


def test_no_other_sql_stands_in_python() -> None:
    found = {(file, beginning_of(file, text)) for file, text in statements()}
    assert found == ALLOWED.keys()


def test_statements_are_recognised() -> None:
    for text in (
        "select 1",
        "\n  with a as (select 1) select",
        'listen "x"',
        "UPDATE jobs SET a = 1",
        "delete from jobs",
    ):
        assert STATEMENT.match(text), text
    for text in ("Update the tables.", "with its reason", "LISTEN does not work", "selection", "set"):
        assert not STATEMENT.match(text), text


def beginning_of(file: str, text: str) -> str:
    """The listed beginning of a statement; the statement itself where none is listed."""
    return next((start for name, start in ALLOWED if name == file and text.startswith(start)), text)


def statements() -> Iterator[tuple[str, str]]:
    for path in PACKAGE.rglob("*.py"):
        for text in literals(ast.parse(path.read_text(encoding="utf-8"))):
            if STATEMENT.match(text):
                yield path.relative_to(PACKAGE).as_posix(), text


def literals(node: ast.AST) -> Iterator[str]:
    """Every text of a module but its docstrings; what is put into an f-string shows as {}."""
    match node:
        case ast.Expr(value=ast.Constant()):
            return
        case ast.JoinedStr():
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        case ast.Constant(value=str()):
            yield str(node.value)
        case _:
            for child in ast.iter_child_nodes(node):
                yield from literals(child)
