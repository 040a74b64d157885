"""Commands that change what becomes of runs: steer, cancel, retry."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from pgrun.cli._shared import AsJson, DatabaseUrl, RunId, RunIds, Schema, fail, open_db, run
from pgrun.cli._show import show_json
from pgrun.errors import UsageError


def cancel(
    run_ids: RunIds, database_url: DatabaseUrl = None, schema: Schema = "pgrun", as_json: AsJson = False
) -> None:
    """Cancel runs: a pending one at once, a running one by stopping its call to the model."""
    _each(run_ids, "cancel", database_url, schema, as_json)


def steer(
    run_id: RunId,
    message: Annotated[str, typer.Argument(help="What the model is to read before its next answer.")],
    database_url: DatabaseUrl = None,
    schema: Schema = "pgrun",
    as_json: AsJson = False,
) -> None:
    """Say something to an open run of an agent."""

    async def command() -> None:
        from pgrun._ids import check_run_id
        from pgrun.run.options import check_name

        async with open_db(database_url, schema) as db:
            verbs = (await db.connected()).verbs
            status = await verbs.steer(check_run_id(run_id), check_name("MESSAGE", message))
        if as_json:
            show_json({"run_id": run_id, "status": status})
        else:
            typer.echo(f"{run_id} {status}")

    run(command)


def retry(
    run_ids: Annotated[list[str] | None, typer.Argument(metavar="[RUN_ID...]", show_default=False)] = None,
    queue: Annotated[str | None, typer.Option(help="All that failed in this queue.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option(help="All of this agent or task.", show_default=False)] = None,
    error_type: Annotated[
        str | None, typer.Option(help="All with this error, for example ConnectionError.", show_default=False)
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DURATION", help="All that ended within 30m, 12h, …", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many at most.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many they are.")] = False,
    database_url: DatabaseUrl = None,
    schema: Schema = "pgrun",
    as_json: AsJson = False,
) -> None:
    """Make failed or cancelled runs due again, with all their attempts; or all that failed and fit the options."""
    given = (queue, name, error_type, since, limit)
    if run_ids:
        if dry_run or any(value is not None for value in given):
            fail(UsageError("RUN_ID names the runs; options choose among all that failed: give one or the other"))
        _each(run_ids, "retry_ended", database_url, schema, as_json)
    if all(value is None for value in given):
        fail(UsageError("say which: RUN_ID, or at least one of --queue, --name, --error-type, --since, --limit"))

    async def command() -> None:
        from pgrun._durations import seconds_of
        from pgrun.db.redriving import Failed

        past = None if since is None else seconds_of(since, option="--since")
        which = asdict(Failed(queue=queue, name=name, error_type=error_type, since=past))
        async with open_db(database_url, schema) as db:
            if dry_run:
                found = await (await db.connected()).verbs.count_failed(**which)
                runs = found if limit is None else min(found, limit)
            else:
                runs = await db.aretry_runs(**which, limit=limit)
        if as_json:
            show_json({"failed" if dry_run else "retried": runs})
        else:
            typer.echo(f"{'would retry' if dry_run else 'retried'} {runs} {'run' if runs == 1 else 'runs'}")

    run(command)


def _each(run_ids: list[str], verb: str, database_url: str | None, schema: str, as_json: bool) -> None:
    async def command() -> int:
        from pgrun._ids import check_run_id
        from pgrun.errors import PgrunError

        states: dict[str, str] = {}
        errors: dict[str, str] = {}
        checked = [check_run_id(run_id) for run_id in run_ids]
        async with open_db(database_url, schema) as db:
            verbs = (await db.connected()).verbs
            for run_id in checked:  # one that cannot must not keep the others from it
                try:
                    states[run_id] = await getattr(verbs, verb)(run_id)
                    if states[run_id] == "cancelled" and (left := await verbs.take_left_calls([], run_id=run_id)):
                        await _stop(verbs, left)
                except PgrunError as error:
                    errors[run_id] = str(error)
        if as_json:
            show_json([{"run_id": key, "state": states.get(key), "error": errors.get(key)} for key in checked])
        else:
            for run_id, state in states.items():
                typer.echo(f"{run_id} {state}")
        for message in errors.values():
            typer.echo(f"pgrun: {message}", err=True)
        return 1 if errors else 0

    run(command)


async def _stop(verbs: Any, left: Any) -> None:
    """Has providers stop what they still work on."""
    from pgrun._agents_here import known_definition
    from pgrun._stopping import stop_left_calls

    await stop_left_calls(verbs, left, known_definition)
