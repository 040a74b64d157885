"""The command submit."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from pgrun.cli._input import json_of, object_of
from pgrun.cli._shared import AsJson, DatabaseUrl, Schema, open_db, run
from pgrun.cli._show import show_json
from pgrun.errors import UsageError


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
