"""Commands about runs: submit, ls, show, wait, steer, cancel, retry."""

import json
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from pgrun.cli._shared import AsJson, DatabaseUrl, Schema, fail, open_db, run
from pgrun.cli._show import Row, show_fields, show_json, show_table
from pgrun.cli.decide import show_decided, show_waiting
from pgrun.errors import UsageError

RunId = Annotated[str, typer.Argument(metavar="RUN_ID", show_default=False)]
RunIds = Annotated[list[str], typer.Argument(metavar="RUN_ID...", show_default=False)]

_ATTEMPT_COLUMNS = ("attempt", "outcome", "error_type", "message", "started_at", "duration", "retry_delay")
_LS_COLUMNS = ("run_id", "name", "queue", "status", "attempt", "created_at", "waited", "duration")


def submit(
    name: Annotated[str, typer.Argument(help="Agent or task.", show_default=False)],
    input: Annotated[
        str, typer.Argument(help='Text, or JSON beginning with {, [ or "; - reads it from stdin.', show_default=False)
    ],
    queue: Annotated[str, typer.Option(help="The queue by which workers choose runs.")] = "default",
    session_id: Annotated[str | None, typer.Option(help="The conversation it belongs to.", show_default=False)] = None,
    priority: Annotated[int, typer.Option(help="Smaller runs first.")] = 0,
    delay: Annotated[float, typer.Option(help="Seconds from now before which it does not start.")] = 0.0,
    max_attempts: Annotated[
        int | None, typer.Option(help="Default: as the agent was declared.", show_default=False)
    ] = None,
    metadata: Annotated[str, typer.Option(help="JSON object to find the run by.")] = "{}",
    model: Annotated[
        str | None, typer.Option(help="Model of OpenAI; makes NAME an agent that needs no code.", show_default=False)
    ] = None,
    instructions: Annotated[str | None, typer.Option(help="System prompt; with --model.", show_default=False)] = None,
    output_schema: Annotated[
        Path | None, typer.Option(help="File with the JSON schema of the answer.", show_default=False)
    ] = None,
    run_id: Annotated[str | None, typer.Option(help="A UUID of your own.", show_default=False)] = None,
    multitask: Annotated[
        str,
        typer.Option(help="If its session is busy: enqueue, reject, interrupt, rollback or parallel."),
    ] = "enqueue",
    key: Annotated[
        str | None, typer.Option(help="Of one NAME, one run at a time holds a key.", show_default=False)
    ] = None,
    key_scope: Annotated[
        str | None, typer.Option(help="How long it holds it: pending, unfinished or ever.", show_default=False)
    ] = None,
    on_duplicate: Annotated[
        str | None, typer.Option(help="If the key is held: keep, replace or debounce.", show_default=False)
    ] = None,
    due_at: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%dT%H:%M:%S%z"], help="Not before this moment.", show_default=False),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="Cancelled if not started so long after it is due: 30m, 12h.", show_default=False)
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(help="Fails if not ended so long after it is due.", show_default=False)
    ] = None,
    timeout: Annotated[str | None, typer.Option(help="Longest time for one attempt.", show_default=False)] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Word to find it by; may be repeated.", show_default=False)
    ] = None,
    concurrency_key: Annotated[
        str | None, typer.Option(help="For whom or what it is: keys take turns, and have limits.", show_default=False)
    ] = None,
    weight: Annotated[int | None, typer.Option(min=1, help="For the rate of its queue.", show_default=False)] = None,
    database_url: DatabaseUrl = None,
    schema: Schema = "pgrun",
    as_json: AsJson = False,
) -> None:
    """Submit a run; prints its run_id."""

    async def command() -> None:
        from pgrun._durations import seconds_of
        from pgrun._ids import check_run_id
        from pgrun.run._terms_said import terms_of
        from pgrun.run.options import check_multitask

        durations = {"expires": expires, "deadline": deadline, "timeout": timeout}
        said = {
            **{"key": key, "key_scope": key_scope, "on_duplicate": on_duplicate, "due_at": due_at, "tags": tag or None},
            **{name: text and seconds_of(text, option=f"--{name}") for name, text in durations.items()},
        }
        terms_of({**said, "delay": delay})
        values = {
            **said,
            "name": name,
            "input": json_of(input, "INPUT"),
            "queue": queue,
            "session_id": session_id,
            "priority": priority,
            "delay": delay,
            "max_attempts": max_attempts and str(max_attempts),
            "metadata": object_of(metadata, "--metadata"),
            "definition": _definition(model, instructions),
            "output_schema": _output_schema(output_schema),
            "run_id": run_id and check_run_id(run_id),
            "multitask": check_multitask("--multitask", multitask),
            "concurrency_key": concurrency_key,
            "weight": weight and str(weight),
        }
        async with open_db(database_url, schema, create_schema=True) as db:
            submitted = await (await db.connected()).verbs.submit_by_name(values)
        if as_json:
            show_json({"run_id": submitted})
        else:
            typer.echo(submitted)

    run(command)


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


def json_of(text: str, what: str) -> Any:
    """What somebody has typed as input: JSON, if it begins like that, else the text itself; ``-`` reads it from stdin."""
    from pgrun.run._storable import to_jsonable

    if text == "-":
        text = typer.get_text_stream("stdin").read()
    if text.lstrip()[:1] not in ("{", "[", '"'):
        return to_jsonable(text, name=what)
    try:
        return to_jsonable(json.loads(text), name=what)
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{what} begins like JSON but is none: {error}") from None


def object_of(text: str, what: str) -> dict[str, Any]:
    """A JSON object that somebody has typed."""
    data = json_of(text, what)
    if not isinstance(data, dict):
        raise UsageError(f"{what} must be a JSON object")
    return data


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UsageError(f"--metadata {text}: KEY=VALUE, as in --metadata order=7")
    return name, value


def _definition(model: str | None, instructions: str | None) -> dict[str, Any] | None:
    if model is None:
        if instructions is not None:
            raise UsageError("--instructions needs --model")
        return None
    from pgrun.models.openai import OpenAIResponses
    from pgrun.run.definition import AgentDefinition

    return AgentDefinition(OpenAIResponses(model), instructions=(instructions,) if instructions else ()).to_json()


def _output_schema(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    from pgrun.run.output import OutputSchema

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output-schema {path}: {error.strerror}") from None
    return OutputSchema.from_json(object_of(text, f"--output-schema {path}")).json_schema


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
