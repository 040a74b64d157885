"""Commands about runs: submit, ls, show, wait, steer, cancel, retry."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from pgrun.cli._shared import AsJson, DatabaseUrl, Schema, open_db, run
from pgrun.cli._show import Row, show_fields, show_json, show_table
from pgrun.cli.decide import show_decided, show_waiting
from pgrun.errors import UsageError

RunId = Annotated[str, typer.Argument(metavar="RUN_ID", show_default=False)]
RunIds = Annotated[list[str], typer.Argument(metavar="RUN_ID...", show_default=False)]

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
    database_url: DatabaseUrl = None,
    schema: Schema = "pgrun",
    as_json: AsJson = False,
) -> None:
    """Submit a run; prints its run_id."""

    async def command() -> None:
        from pgrun._ids import check_run_id
        from pgrun.run.options import check_multitask

        values = {
            "name": name,
            "input": _data(input, "INPUT"),
            "queue": queue,
            "session_id": session_id,
            "priority": priority,
            "delay": delay,
            "max_attempts": max_attempts,
            "metadata": _object(metadata, "--metadata"),
            "definition": _definition(model, instructions),
            "output_schema": _output_schema(output_schema),
            "run_id": run_id and check_run_id(run_id),
            "multitask": check_multitask("--multitask", multitask),
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
        async with open_db(database_url, schema) as db:
            verbs = (await db.connected()).verbs
            rows = await verbs.list_runs(status=status, queue=queue, name=name, session_id=session_id, max_rows=limit)
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
            steps = await verbs.steps(run_id) if row and row["kind"] == "agent" else []
        if row is None:
            raise RunNotFound(f"no run {run_id} exists", run_id=run_id)
        if as_json:
            show_json({**row, "steps": steps})
            return
        show_fields(row)
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


def retry(run_ids: RunIds, database_url: DatabaseUrl = None, schema: Schema = "pgrun", as_json: AsJson = False) -> None:
    """Make failed or cancelled runs due again, with all their attempts."""
    _each(run_ids, "retry_ended", database_url, schema, as_json)


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
    from pgrun._stopping import stop_left_calls
    from pgrun.agent import known_definition

    await stop_left_calls(verbs, left, known_definition)


def _data(text: str, what: str) -> Any:
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


def _object(text: str, what: str) -> dict[str, Any]:
    data = _data(text, what)
    if not isinstance(data, dict):
        raise UsageError(f"{what} must be a JSON object")
    return data


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
    return OutputSchema.from_json(_object(text, f"--output-schema {path}")).json_schema


def _result(step: Row) -> str:
    """What came of a step, in a word or two: of a tool what the model was shown, of a model what it said or wants to call."""
    data = step["data"]
    if step["kind"] == "message":
        return " / ".join(data)
    if step["kind"] not in ("model_call", "tool_call"):
        return json.dumps(data, ensure_ascii=False)
    wanted = ", ".join(call["name"] for call in data.get("calls", ()))
    return str(data.get("result") or data.get("error") or data.get("text") or (wanted and f"calls {wanted}"))
