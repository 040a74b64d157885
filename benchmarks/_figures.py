"""What the benchmarks make of their samples: quantiles, medians of rounds, tables on the terminal, and JSON with the machine."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import psycopg


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds of values in seconds."""
    ordered = sorted(values)
    return {f"p{q}": round(ordered[min(len(ordered) * q // 100, len(ordered) - 1)] * 1000, 2) for q in (50, 95, 99)}


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over the rounds."""
    return {name: round(median(figures[name] for figures in rounds), 3) for name in rounds[0]}


def table(columns: Sequence[str], rows: Mapping[str, Sequence[object]]) -> None:
    """Prints rows with their names."""
    width = max(len(name) for name in [*rows, columns[0]]) + 2
    print(f"{columns[0]:{width}}" + "".join(f"{column:>18}" for column in columns[1:]))
    for name, cells in rows.items():
        shown = (f"{cell:>18,.2f}" if isinstance(cell, float) else f"{cell!s:>18}" for cell in cells)
        print(f"{name:{width}}" + "".join(shown))


def write(path: str | None, on: str, figures: Mapping[str, Any]) -> None:
    """Writes the figures as JSON, if a file was asked for, together with the machine that they are of.

    Args:
        path: The file.
        on: Conninfo of the server.
        figures: As they are to be found in the file, beside `machine`.
    """
    if path:
        text = json.dumps({"machine": machine(on), **figures}, indent=2, ensure_ascii=False)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text + "\n", encoding="utf-8")


def machine(on: str) -> dict[str, str | int | None]:
    """Where and when something was measured; `on` is the conninfo of the server."""
    with psycopg.connect(on) as conn:
        version = conn.execute("show server_version").fetchone()
    assert version is not None
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "postgres": version[0],
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
