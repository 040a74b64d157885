"""The SQL files as statements: parameters, comments, other schemas; and each of them is used."""

import ast
import re
from pathlib import Path

import pytest

import pgrun.db
from pgrun import UsageError
from pgrun.db.migrations import migrations, newest
from pgrun.db.statements import check_schema, in_schema, sql_dir, statement

FILES = sorted((sql_dir() / "queries").glob("*.sql"))
NAMES = [path.stem for path in FILES]
EXECUTING = {"fetch", "fetch_one", "fetch_tuples", "fetch_directly", "statement"}


class AsInPsql(dict[str, str]):
    """Fills a parameter in with the variable it was in the file."""

    def __missing__(self, name: str) -> str:
        return f":'{name}'"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_statement_is_its_file_with_parameters_and_without_comments(path: Path) -> None:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("--")]
    expected = "\n".join(line for line in lines if line.strip()).rstrip().removesuffix(";")
    assert statement(path.stem, "pgrun") % AsInPsql() == f"/* pgrun {path.stem} */ {expected}"
    assert "--" not in expected


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_file_begins_with_a_header_in_prose_and_holds_one_statement(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.match(r"-- [A-Z]", text)
    assert statement(path.stem, "pgrun").count(";") == 0


@pytest.mark.parametrize("name", NAMES)
def test_in_another_schema_nothing_of_the_default_one_is_left(name: str) -> None:
    moved = statement(name, "acme").removeprefix(f"/* pgrun {name} */ ")
    assert "pgrun" not in moved
    assert moved == in_schema(statement(name, "pgrun"), "acme").partition("*/ ")[2]


@pytest.mark.parametrize(
    ("sql", "moved"),
    [
        ("select * from pgrun.jobs j", 'select * from "acme".jobs j'),
        ("create schema if not exists pgrun;", 'create schema if not exists "acme";'),
        ("select pg_notify('pgrun_wake', queue)", "select pg_notify('acme_wake', queue)"),
        ("grant select on pgrun.runs to pgrun_viewer", 'grant select on "acme".runs to acme_viewer'),
        ("select pgrun._open_session(x)", 'select "acme"._open_session(x)'),
        ("select mypgrun.x, pgrunner, x_pgrun_y", "select mypgrun.x, pgrunner, x_pgrun_y"),
    ],
)
def test_the_schemas_name_gives_way_where_it_stands_for_itself(sql: str, moved: str) -> None:
    assert in_schema(sql, "acme") == moved
    assert in_schema(sql, "pgrun") == sql


def test_a_percent_sign_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "queries").mkdir()
    (tmp_path / "queries" / "find_x.sql").write_text("-- 100 % of it.\nselect 7 % 2 where a like 'x%' and b = :'b';\n")
    monkeypatch.setattr("pgrun.db.statements.sql_dir", lambda: tmp_path)
    found = statement.__wrapped__("find_x", "pgrun")
    assert found == "/* pgrun find_x */ select 7 %% 2 where a like 'x%%' and b = %(b)s"


@pytest.mark.parametrize("name", ["pgrun", "a", "_x", "acme_2", "a" * 40])
def test_a_schema_that_can_be_is_taken(name: str) -> None:
    assert check_schema(name) == name


@pytest.mark.parametrize("name", ["", "Acme", "2x", "a-b", "a b", 'a"b', "a.b", "pg_x", "a" * 41, "a\n", "ä", "a;"])
def test_a_schema_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="use up to 40 lower-case letters, digits and underscores") as caught:
        check_schema(name)
    assert repr(name) in str(caught.value)


def test_every_statement_that_is_executed_has_a_file_and_every_file_is_executed() -> None:
    assert executed() == set(NAMES)


def test_migrations_are_numbered_without_gaps() -> None:
    assert [migration.number for migration in migrations()] == [*range(1, newest() + 1)]
    for path in (sql_dir() / "migrations").iterdir():
        assert re.fullmatch(r"\d{4}_[a-z_]+\.sql", path.name)
    assert all(migration.name and migration.sql.startswith("--") for migration in migrations())


def executed() -> set[str]:
    """The names that the database layer passes to what executes statements."""
    found = set()
    for path in Path(pgrun.db.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and name_of(node.func) in EXECUTING:
                found |= {str(argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return found


def name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
