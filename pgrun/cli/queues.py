"""Commands about queues: what they hold, their limits, pause and resume."""

from typing import Annotated, Any

import typer

from pgrun._durations import seconds_of
from pgrun.cli._shared import AsJson, DatabaseUrl, Schema, open_db, run
from pgrun.cli._show import show_json, show_table
from pgrun.errors import UsageError

Queue = Annotated[str, typer.Argument(metavar="QUEUE", show_default=False)]

_COLUMNS = (
    *("queue", "depth", "held", "scheduled", "oldest_due_age", "running", "concurrency", "key_concurrency"),
    *("rate", "per", "burst", "tokens", "paused", "waits_for"),
)

app = typer.Typer(help="Show the queues; queues set changes their limits.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def queues(
    context: typer.Context, database_url: DatabaseUrl = None, schema: Schema = "pgrun", as_json: AsJson = False
) -> None:
    """Show what waits and runs in each queue, its limits, and why nothing starts. Its command set changes limits."""

    async def command() -> None:
        async with open_db(database_url, schema) as db:
            found = await db.aqueues()
        if as_json:
            show_json([*found.values()])
        else:
            rows = [{**row, "tokens": row["tokens"] and round(row["tokens"], 1)} for row in found.values()]
            show_table(rows, _COLUMNS, nothing="no queues")

    if context.invoked_subcommand is None:
        run(command)


@app.command(name="set")
def set_limits(
    queue: Queue,
    concurrency: Annotated[
        str | None, typer.Option(help="At most so many of its runs at once.", show_default=False)
    ] = None,
    key_concurrency: Annotated[
        str | None, typer.Option(help="At most so many runs of one key at once.", show_default=False)
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="So many start per --per; weights of runs count.", show_default=False)
    ] = None,
    per: Annotated[
        str | None, typer.Option(help="1s, 1m, 1h, … for --rate; at first it is a second.", show_default=False)
    ] = None,
    burst: Annotated[
        str | None,
        typer.Option(
            help="So many may start at one moment after a rest; at first as many as --rate.", show_default=False
        ),
    ] = None,
    database_url: DatabaseUrl = None,
    schema: Schema = "pgrun",
    as_json: AsJson = False,
) -> None:
    """Set limits of a queue for all workers, at once; "none" takes one away, what is left out stays."""
    texts = {"concurrency": concurrency, "key_concurrency": key_concurrency, "rate": rate, "per": per, "burst": burst}

    async def command() -> None:
        limits = {name: _limit(name, text) for name, text in texts.items() if text is not None}
        async with open_db(database_url, schema) as db:
            await db.aset_queue(queue, **limits)
            now = (await db.aqueues())[queue]
        if as_json:
            show_json(now)
        else:
            show_table([now], ("queue", *texts), nothing="")

    run(command)


def pause(
    queue: Queue,
    resume_after: Annotated[
        str | None, typer.Option("--for", help="30s, 10m, 2h, …; else until it is resumed.", show_default=False)
    ] = None,
    database_url: DatabaseUrl = None,
    schema: Schema = "pgrun",
) -> None:
    """Start nothing more from a queue. What runs goes on; runs can be submitted."""

    async def command() -> None:
        seconds = None if resume_after is None else seconds_of(resume_after, option="--for")
        async with open_db(database_url, schema) as db:
            await db.apause_queue(queue, resume_after=seconds)
        typer.echo(f"{queue} is paused{f' for {resume_after}' if resume_after else ''}")

    run(command)


def resume(queue: Queue, database_url: DatabaseUrl = None, schema: Schema = "pgrun") -> None:
    """End the pause of a queue; workers look at once."""

    async def command() -> None:
        async with open_db(database_url, schema) as db:
            await db.aresume_queue(queue)
        typer.echo(f"{queue} is resumed")

    run(command)


def _limit(name: str, text: str) -> Any:
    option = f"--{name.replace('_', '-')}"
    if text == "none":
        return None
    if name == "per":
        return seconds_of(text, option=option)
    try:
        return float(text) if name in ("rate", "burst") else int(text)
    except ValueError:
        raise UsageError(f'{option} {text}: a number, or "none" for no limit') from None
