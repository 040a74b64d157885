"""What the benchmarks share: a server to measure on, a database of their own in it, and tables of figures."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from statistics import median
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgrun.db.embedded import EmbeddedPostgres


def parser(description: str | None) -> argparse.ArgumentParser:
    """Takes the options that all benchmarks have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", help="also write the figures there")
    made.add_argument("--database-url", help="measure on this server; by default on a private one")
    return made


@contextmanager
def server(given: str | None) -> Iterator[str]:
    """Conninfo of a server with its durability on: the given one, or a private one with its defaults."""
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="pgrun-bench-", ignore_cleanup_errors=True) as directory:
        os.chmod(directory, 0o711)  # the account that runs the server for root must get through
        with EmbeddedPostgres(
            directory + "/postgres", settings={"max_wal_size": "4GB", "shared_buffers": "1GB"}
        ) as own:
            yield own.conninfo


@contextmanager
def database(on: str) -> Iterator[str]:
    """Conninfo of an empty database, gone afterwards."""
    name = sql.Identifier(f"pgrun_bench_{os.getpid()}")
    with psycopg.connect(on, autocommit=True) as admin:
        admin.execute(sql.SQL("drop database if exists {} with (force)").format(name))
        admin.execute(sql.SQL("create database {}").format(name))
    try:
        yield make_conninfo(on, dbname=f"pgrun_bench_{os.getpid()}")
    finally:
        with suppress(psycopg.OperationalError), psycopg.connect(on, autocommit=True) as admin:
            admin.execute(sql.SQL("drop database if exists {} with (force)").format(name))


@contextmanager
def worker(url: str, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """A daemon in a process of its own."""
    command = [sys.executable, "-m", "pgrun", "worker", "--log-level", "warning", *options]
    process = subprocess.Popen(command, env={**os.environ, **(environment or {}), "PGRUN_DATABASE_URL": url})
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds of values in seconds."""
    ordered = sorted(values)
    return {f"p{q}": round(ordered[min(len(ordered) * q // 100, len(ordered) - 1)] * 1000, 2) for q in (50, 95, 99)}


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over the rounds."""
    return {name: median(figures[name] for figures in rounds) for name in rounds[0]}


def table(columns: Sequence[str], rows: Mapping[str, Sequence[object]]) -> None:
    """Prints rows with their names."""
    width = max(len(name) for name in [*rows, columns[0]]) + 2
    print(f"{columns[0]:{width}}" + "".join(f"{column:>18}" for column in columns[1:]))
    for name, cells in rows.items():
        shown = (f"{cell:>18,.2f}" if isinstance(cell, float) else f"{cell!s:>18}" for cell in cells)
        print(f"{name:{width}}" + "".join(shown))


def write(path: str | None, figures: Mapping[str, Any]) -> None:
    """Writes the figures as JSON, if a file was asked for."""
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=2)
