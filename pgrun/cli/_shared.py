"""What all commands share: where the database is, how a command runs, and how its errors reach the terminal."""

import gc
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, NoReturn

import anyio
import typer

from pgrun.errors import PgrunError, UsageError

RunId = Annotated[str, typer.Argument(metavar="RUN_ID", show_default=False)]
RunIds = Annotated[list[str], typer.Argument(metavar="RUN_ID...", show_default=False)]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        help='Database; default: $PGRUN_DATABASE_URL, then $DATABASE_URL. "embedded:[dir]" is a private Postgres.',
        show_default=False,
    ),
]
Schema = Annotated[str, typer.Option("--schema", help="Schema of pgrun's tables.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for scripts instead of a table.")]


def open_db(database_url: str | None, schema: str, **options: Any) -> Any:
    """A `PostgresDb` that executes nothing itself."""
    from pgrun.db._address import url_from_environment
    from pgrun.db.postgres import PostgresDb

    gc.enable()  # see main
    url = database_url or url_from_environment("PGRUN_DATABASE_URL", "DATABASE_URL")
    return PostgresDb(url, schema=schema, worker="external", **{"create_schema": False, **options})


def run(command: Callable[[], Coroutine[Any, Any, int | None]], *, uvloop: bool = False) -> NoReturn:
    """Runs a command to its end and leaves with its exit code: 0 ok, 1 failed, 2 wrong usage.

    Args:
        command: What to run.
        uvloop: On uvloop's event loop. Its import costs more than it saves in a command that soon ends.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    # The pool speaks of every connection it cannot make; the command itself says it once, and better.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    try:
        code = anyio.run(command, backend_options={"use_uvloop": uvloop})
    except PgrunError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(code or 0)


def has_uvloop() -> bool:
    """Whether uvloop is installed and can be imported here."""
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return False
    return True


def fail(error: PgrunError) -> NoReturn:
    """Says what is wrong and leaves."""
    typer.echo(f"pgrun: {error}", err=True)
    raise typer.Exit(2 if isinstance(error, UsageError) else 1)


def add_working_directory() -> None:
    """Lets --import find modules beside where the command was started, as python -m does."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
