"""`pgrun schedules`: what is submitted again and again; list, add, pause, resume, remove, run-now."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any

import typer

from pgrun._durations import seconds_of
from pgrun.cli._input import json_of, object_of
from pgrun.cli._shared import AsJson, DatabaseUrl, Schema, fail, open_db, run
from pgrun.cli._show import Row, show_json, show_table
from pgrun.errors import UsageError

Name = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Name of the schedule.", show_default=False)]

app = typer.Typer(
    help="List schedules, with their next and last ticks; or change them.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def schedules(
    context: typer.Context, database_url: DatabaseUrl = None, schema: Schema = "pgrun", as_json: AsJson = False
) -> None:
    """List schedules, with their next and last ticks; or change them."""
    if command := context.invoked_subcommand:
        if database_url or schema != "pgrun" or as_json:
            fail(UsageError(f"options go behind the command: pgrun schedules {command} …"))
        return

    async def show() -> None:
        async with open_db(database_url, schema) as db:
            rows = await (await db.connected()).verbs.list_schedules()
        if as_json:
            show_json(rows)
            return
        columns = ("schedule", "name", "ticks", "timezone", "missed", "next", "last_at", "last_status", "declared_at")
        show_table([{**row, "ticks": _ticks(row), "next": _next(row)} for row in rows], columns, nothing="no schedules")

    run(show)


@app.command()
def add(
    schedule: Name,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Agent or task.", show_default=False)],
    input: Annotated[
        str, typer.Argument(metavar="INPUT", help='Text, or JSON beginning with {, [ or "; - reads it from stdin.')
    ] = "{}",
    cron: Annotated[
        str | None,
        typer.Option(help='Minute, hour, day, month, weekday: "0 9 * * MON-FRI".', show_default=False),
    ] = None,
    every: Annotated[str | None, typer.Option(help="30s, 5m, 12h, 7d, …", show_default=False)] = None,
    at: Annotated[str | None, typer.Option(help="Once, at 2030-01-01T09:00+01:00, say.", show_default=False)] = None,
    timezone: Annotated[str, typer.Option(help="Where the clock hangs that --cron means.")] = "UTC",
    missed: Annotated[str, typer.Option(help="Ticks while no worker lived: skip, once or all.")] = "once",
    queue: Annotated[str, typer.Option(help="The queue of its runs.")] = "default",
    options: Annotated[
        str,
        typer.Option(
            help="JSON object: session_id, priority, max_attempts, multitask, metadata, concurrency_key, weight."
        ),
    ] = "{}",
    database_url: DatabaseUrl = None,
    schema: Schema = "pgrun",
    as_json: AsJson = False,
) -> None:
    """Add a schedule, or change the one of that name."""

    async def command() -> None:
        seconds = None if every is None else seconds_of(every, option="--every")
        told = {**object_of(options, "--options"), "queue": queue}
        when: dict[str, Any] = {
            "cron": cron,
            "every": seconds,
            "at": _moment(at),
            "timezone": timezone,
            "missed": missed,
        }
        async with open_db(database_url, schema, create_schema=True) as db:
            await db.aschedule(name, json_of(input, "INPUT"), name=schedule, **when, **told)
        _say(schedule, "added", as_json=as_json)

    run(command)


def _moment(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--at {text}: {error}") from None


@app.command()
def pause(schedule: Name, database_url: DatabaseUrl = None, schema: Schema = "pgrun", as_json: AsJson = False) -> None:
    """Fire nothing until it is resumed; ticks in between are gone."""
    _do(schedule, lambda db: db.apause_schedule(schedule), "paused", database_url, schema, as_json)


@app.command()
def resume(schedule: Name, database_url: DatabaseUrl = None, schema: Schema = "pgrun", as_json: AsJson = False) -> None:
    """End a pause."""
    _do(schedule, lambda db: db.aresume_schedule(schedule), "resumed", database_url, schema, as_json)


@app.command()
def remove(schedule: Name, database_url: DatabaseUrl = None, schema: Schema = "pgrun", as_json: AsJson = False) -> None:
    """Remove it; what it has submitted stays."""

    async def unschedule(db: Any) -> None:
        if not await db.aunschedule(schedule):
            raise UsageError(f'no schedule "{schedule}" exists')

    _do(schedule, unschedule, "removed", database_url, schema, as_json)


@app.command("run-now")
def run_now(
    schedule: Name, database_url: DatabaseUrl = None, schema: Schema = "pgrun", as_json: AsJson = False
) -> None:
    """Submit a run of it now, besides its ticks; prints its run_id."""

    async def command() -> None:
        async with open_db(database_url, schema) as db:
            run_id = await db.arun_schedule(schedule)
        if as_json:
            show_json({"run_id": run_id})
        else:
            typer.echo(run_id)

    run(command)


def _do(
    schedule: str,
    change: Callable[[Any], Awaitable[None]],
    done: str,
    database_url: str | None,
    schema: str,
    as_json: bool,
) -> None:
    async def command() -> None:
        async with open_db(database_url, schema) as db:
            await change(db)
        _say(schedule, done, as_json=as_json)

    run(command)


def _say(schedule: str, done: str, *, as_json: bool) -> None:
    if as_json:
        show_json({"schedule": schedule, "done": done})
    else:
        typer.echo(f"{schedule} {done}")


def _ticks(row: Row) -> str:
    """When it comes round, in a few words."""
    if row["cron"]:
        return str(row["cron"])
    return f"every {row['every']}" if row["every"] else "once"


def _next(row: Row) -> Any:
    """Its next tick, or why there is none."""
    if row["error"]:
        return row["error"]
    return "paused" if row["paused_at"] else "ended" if row["ended_at"] else row["next_at"]
