"""Commands that look at runs: ls, show, wait."""

import json
from datetime import timedelta
from typing import Annotated, Any

import typer

from pgrun.cli._shared import AsJson, DatabaseUrl, RunId, RunIds, Schema, open_db, run
from pgrun.cli._show import Row, show_fields, show_json, show_table
from pgrun.cli.decide import show_decided, show_waiting
from pgrun.errors import UsageError

_ATTEMPT_COLUMNS = ("attempt", "outcome", "error_type", "message", "started_at", "duration", "retry_delay")
_LS_COLUMNS = ("run_id", "name", "queue", "status", "attempt", "created_at", "waited", "duration")


def ls(
    status: Annotated[str, typer.Option(help="Only this status.")] = "",
    queue: Annotated[str, typer.Option(help="Only this queue.")] = "",
    name: Annotated[str, typer.Option(help="Only this agent or task.")] = "",
    session_id: Annotated[str, typer.Option(help="Only this session.")] = "",
    tag: Annotated[
        list[str] | None, typer.Option(help="Only with this tag; may be repeated.", show_default=False)
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Only with this in their metadata; may be repeated.", show_default=False
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    database_url: DatabaseUrl = None,
    schema: Schema = "pgrun",
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first."""

    async def command() -> None:
        from pgrun.run.base import RunStatus

        if status and status not in list(RunStatus):
            raise UsageError(f"--status {status}: there are {', '.join(RunStatus)}")
        found = dict(_pair(text) for text in metadata or ())
        async with open_db(database_url, schema) as db:
            verbs = (await db.connected()).verbs
            filters = {"status": status, "queue": queue, "name": name, "session_id": session_id}
            rows = await verbs.list_runs(**filters, tags=tag or [], metadata=found, max_rows=limit)
        if as_json:
            show_json(rows)
        else:
            last = "waits_for" if status == RunStatus.paused else "error"
            show_table(rows, (*_LS_COLUMNS, last), nothing="no runs")

    run(command)


def show(run_id: RunId, database_url: DatabaseUrl = None, schema: Schema = "pgrun", as_json: AsJson = False) -> None:
    """Show everything about one run, and its steps."""

    async def command() -> None:
        from pgrun._ids import check_run_id
        from pgrun.errors import RunNotFound

        async with open_db(database_url, schema) as db:
            verbs = (await db.connected()).verbs
            row = await verbs.get(check_run_id(run_id))
            why = await verbs.reason(run_id)
            steps = await verbs.steps(run_id) if row else []
            attempts = await verbs.attempts(run_id) if row else []
        if row is None:
            raise RunNotFound(f"no run {run_id} exists", run_id=run_id)
        if as_json:
            show_json({**row, "why": why, "steps": steps, "attempts": attempts})
            return
        show_fields({**row, "why": why, "error": _without_traceback(row["error"])})
        if attempts:
            typer.echo()
            show_table([_in_durations(each) for each in attempts], _ATTEMPT_COLUMNS, nothing="")
            typer.echo(f"\n{attempts[-1]['traceback']}" if attempts[-1]["traceback"] else "", nl=False)
        if steps:
            typer.echo()
            shown = [
                {**step, "duration": timedelta(seconds=step["duration"]), "result": _result(step)} for step in steps
            ]
            show_table(shown, ("step", "kind", "name", "duration", "result"), nothing="")
        show_decided(row)
        show_waiting(row)

    run(command)


def wait(
    run_ids: RunIds,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait at most.", show_default=False)] = None,
    database_url: DatabaseUrl = None,
    schema: Schema = "pgrun",
    as_json: AsJson = False,
) -> None:
    """Wait until runs have ended, without polling; print what they answered. Fails if one of them failed."""

    async def command() -> int:
        async with open_db(database_url, schema) as db:
            outputs = await db.await_runs(run_ids, timeout=timeout)
        for output in outputs:
            if as_json:
                show_json(output)
            elif output.status != "completed":
                typer.echo(f"{output.run_id} {output.status}{f': {output.error}' if output.error else ''}", err=True)
            elif isinstance(output.content, str):
                typer.echo(output.content)
            else:
                typer.echo(json.dumps(output.content, indent=2, ensure_ascii=False))
        return 0 if all(output.status == "completed" for output in outputs) else 1

    run(command)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UsageError(f"--metadata {text}: KEY=VALUE, as in --metadata order=7")
    return name, value


def _without_traceback(error: dict[str, Any] | None) -> dict[str, Any] | None:
    return error and {name: value for name, value in error.items() if name != "traceback"}


def _in_durations(attempt: Row) -> Row:
    times = {name: attempt[name] for name in ("duration", "retry_delay")}
    return {**attempt, **{name: None if value is None else timedelta(seconds=value) for name, value in times.items()}}


def _result(step: Row) -> str:
    """What came of a step, in a word or two: of a tool what the model was shown, of a model what it said or wants to call."""
    data = step["data"]
    if step["kind"] == "message":
        return " / ".join(data)
    if step["kind"] not in ("model_call", "tool_call"):
        return json.dumps(data, ensure_ascii=False)
    wanted = ", ".join(call["name"] for call in data.get("calls", ()))
    return str(data.get("result") or data.get("error") or data.get("text") or (wanted and f"calls {wanted}"))
