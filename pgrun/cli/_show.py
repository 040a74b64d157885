"""How rows look on a terminal, and as JSON."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import typer
from pydantic_core import to_json

Row = Mapping[str, Any]

_WIDEST = 60


def show_table(rows: Sequence[Row], columns: Iterable[str], *, nothing: str) -> None:
    """Prints chosen columns of rows, one line each, under their names."""
    if not rows:
        typer.echo(nothing)
        return
    names = [*columns]
    lines = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def show_fields(row: Row) -> None:
    """Prints one row, a line per column that has a value."""
    width = max(len(name) for name in row)
    for name, value in row.items():
        if value not in (None, {}, []):
            text = _json_text(value, indent=2) if isinstance(value, dict | list) else _plain(value)
            typer.echo(f"{name.ljust(width)}  {text.replace(chr(10), chr(10) + ' ' * (width + 2))}")


def show_json(value: Any) -> None:
    """Prints data as JSON; durations are float seconds."""
    typer.echo(_json_text(value))


def _json_text(value: Any, indent: int | None = None) -> str:
    return to_json(value, indent=indent, timedelta_mode="float", fallback=str).decode()


def _cell(value: Any) -> str:
    text = " ".join(_plain(value).split())
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _plain(value: Any) -> str:
    match value:
        case None:
            return ""
        case datetime():
            return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        case timedelta():
            seconds = value.total_seconds()
            return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"
        case list():
            return ",".join(_plain(item) for item in value)
        case _:
            return str(value)
