"""Commands about the system: migrate, worker, prune, stats."""

import importlib
import logging
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from pgrun._durations import seconds_of
from pgrun.cli._shared import AsJson, DatabaseUrl, Schema, add_working_directory, has_uvloop, open_db, run
from pgrun.cli._show import show_json, show_table
from pgrun.errors import UsageError

_COUNTING = 300.0  # seconds for one statement; with filters, --dry-run reads all rows that are old enough


def migrate(database_url: DatabaseUrl = None, schema: Schema = "pgrun", as_json: AsJson = False) -> None:
    """Create or upgrade the tables. Safe to run any number of times, also at once."""

    async def command() -> None:
        db = open_db(database_url, schema)
        applied = await db.amigrate()
        await db.aclose()
        if as_json:
            show_json([{"number": migration.number, "name": migration.name} for migration in applied])
        elif not applied:
            typer.echo(f'schema "{schema}" is up to date')
        for migration in () if as_json else applied:
            typer.echo(f"applied {migration.number:04} {migration.name}")

    run(command)


def worker(
    queues: Annotated[str, typer.Option(help="Queues to claim from, separated by commas.")] = "default",
    concurrency: Annotated[int, typer.Option(min=1, help="Most runs at once in each process.")] = 50,
    processes: Annotated[
        int, typer.Option(min=1, help="Worker processes, each with its own --concurrency; one that dies is replaced.")
    ] = 1,
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", help="Module that declares agents or tasks; may be repeated.", show_default=False),
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds to finish what it holds after SIGTERM or SIGINT.")
    ] = 30.0,
    lease: Annotated[
        float, typer.Option(min=0.5, help="Seconds after which a dead worker's runs go to others.")
    ] = 15.0,
    retention: Annotated[
        str,
        typer.Option(
            help="Delete runs that ended longer ago than 7d, 12h, …, at least 1h; or by status: completed=7d,error=90d. "
            '"forever" deletes nothing.'
        ),
    ] = "forever",
    event_retention: Annotated[
        str,
        typer.Option(help='Delete the events of runs that ended longer ago than 7d, 12h, …; "forever": with the run.'),
    ] = "forever",
    listen_url: Annotated[
        str | None,
        typer.Option(help="Address of the server itself, if the database URL is a pooler's.", show_default=False),
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    leash: Annotated[int | None, typer.Option(hidden=True)] = None,  # a supervisor's worker; see worker/leash.py
    database_url: DatabaseUrl = None,
    schema: Schema = "pgrun",
) -> None:
    """Execute runs until SIGTERM or SIGINT; a second signal stops at once."""

    async def keep_processes() -> int:
        from pgrun.worker.supervisor import supervise

        _log_to_stderr(log_level, of_many=True)
        # The same command once more for each process, however it was started.
        return await supervise([sys.executable, *sys.orig_argv[1:]], processes=processes, grace=grace)

    async def execute() -> int:
        from pgrun.settings import Settings
        from pgrun.worker.daemon import serve
        from pgrun.worker.leash import Leash

        _log_to_stderr(log_level, of_many=leash is not None)
        held = None if leash is None else Leash(leash, grace=grace)
        _import_modules(imports or [])
        kept = None if retention == "forever" else _retention_of(retention)
        told = None if event_retention == "forever" else seconds_of(event_retention, option="--event-retention")
        settings = Settings(lease=lease, retention=kept, event_retention=told)
        db = open_db(database_url, schema, create_schema=True, listen_url=listen_url, settings=settings)
        names = [name.strip() for name in queues.split(",") if name.strip()]
        return await serve(db, queues=names, concurrency=concurrency, grace=grace, leash=held)

    if processes > 1 and leash is None:
        run(keep_processes)
    run(execute, uvloop=has_uvloop())


def prune(
    older_than: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="How long ago they ended: 30m, 12h, 7d, or a number of seconds.",
            show_default=False,
        ),
    ],
    status: Annotated[
        str | None, typer.Option(help="Only completed, error or cancelled ones.", show_default=False)
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Only this queue.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option(help="Only this agent or task.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many they are.")] = False,
    database_url: DatabaseUrl = None,
    schema: Schema = "pgrun",
    as_json: AsJson = False,
) -> None:
    """Delete runs that have ended, the oldest first, a few at a time. Open runs and sessions stay."""

    async def command() -> None:
        from pgrun.db.pruning import Prunable
        from pgrun.settings import Settings

        seconds = seconds_of(older_than, option="--older-than")
        which = Prunable(older_than=seconds, status=status, queue=queue, name=name)
        settings = Settings(statement_timeout=_COUNTING) if dry_run else None
        async with open_db(database_url, schema, settings=settings) as db:
            if dry_run:
                runs = await (await db.connected()).verbs.count_prunable(**asdict(which))
            else:
                runs = await db.aprune(**asdict(which))
        if as_json:
            show_json({"prunable" if dry_run else "deleted": runs})
        else:
            typer.echo(f"{'would delete' if dry_run else 'deleted'} {runs} {'run' if runs == 1 else 'runs'}")

    run(command)


def stats(database_url: DatabaseUrl = None, schema: Schema = "pgrun", as_json: AsJson = False) -> None:
    """Show what waits and runs per queue, and the workers that are alive."""

    async def command() -> None:
        async with open_db(database_url, schema) as db:
            verbs = (await db.connected()).verbs
            queues, workers = await verbs.queue_stats(), await verbs.worker_status()
        if as_json:
            show_json({"queues": queues, "workers": workers})
            return
        show_table(queues, queues[0] if queues else (), nothing="no queues")
        typer.echo()
        columns = ("worker_id", "mode", "host", "pid", "queues", "concurrency", "running", "state", "heartbeat_at")
        show_table(workers, columns, nothing="no workers")

    run(command)


def _retention_of(text: str) -> float | dict[str, float]:
    if "=" not in text:
        return seconds_of(text, option="--retention")
    pairs = (each.partition("=") for each in text.split(","))
    return {status.strip(): seconds_of(kept.strip(), option="--retention") for status, _, kept in pairs}


def _log_to_stderr(level: str, *, of_many: bool) -> None:
    if level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise UsageError(f"--log-level {level}: choose debug, info, warning or error")
    who = "[%(process)d] " if of_many else ""
    logging.basicConfig(
        level=level.upper(), format=f"%(asctime)s %(levelname)-7s {who}%(message)s", stream=sys.stderr, force=True
    )
    for chatty in ("httpx", "httpx2", "httpcore", "httpcore2", "openai"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _import_modules(names: list[str]) -> None:
    add_working_directory()
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UsageError(f"--import {name}: {error}") from error
