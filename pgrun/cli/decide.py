"""Commands for the person whom a paused run waits for: approve and reject; and what `show` says of such a run."""

import getpass
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import typer

from pgrun.cli._shared import AsJson, DatabaseUrl, RunId, Schema, open_db, run
from pgrun.cli._show import Row, show_json, show_table
from pgrun.errors import UsageError

Call = Annotated[
    str | None, typer.Option(help="Only this call of those that it waits for, by its call_id.", show_default=False)
]
Note = Annotated[
    str | None, typer.Option(help="What you say about it; of a rejection the model is told.", show_default=False)
]
By = Annotated[str | None, typer.Option(help="Who decides. Default: your name on this machine.", show_default=False)]

_QUESTIONS = {
    "confirmation": "May it be called?",
    "user_input": "With which values?",
    "external": "What did it return?",
    "repeat": "It may have happened. Call it again?",
}


def approve(
    run_id: RunId,
    call: Call = None,
    note: Note = None,
    result: Annotated[
        str | None, typer.Option(help="What a call returned that was executed elsewhere.", show_default=False)
    ] = None,
    input: Annotated[
        str | None, typer.Option(help="JSON object with the values that a call waits for.", show_default=False)
    ] = None,
    by: By = None,
    database_url: DatabaseUrl = None,
    schema: Schema = "pgrun",
    as_json: AsJson = False,
) -> None:
    """Approve what a paused run waits for; it goes on when nothing is open any more. Prints the status it has then."""
    decision = {"call_id": call, "note": note, "result": result, "input": input, "decided_by": by}
    run(lambda: _decide(run_id, {**decision, "approved": True}, database_url, schema, as_json))


def reject(
    run_id: RunId,
    call: Call = None,
    note: Note = None,
    by: By = None,
    database_url: DatabaseUrl = None,
    schema: Schema = "pgrun",
    as_json: AsJson = False,
) -> None:
    """Reject what a paused run waits for: the model is told, and the run goes on when nothing is open any more."""
    decision = {"call_id": call, "note": note, "decided_by": by, "approved": False}
    run(lambda: _decide(run_id, decision, database_url, schema, as_json))


def show_waiting(row: Row) -> None:
    """Prints the calls that a paused run waits for, and how to decide on them; nothing for another run."""
    waiting = [each for each in row["requirements"] or () if "approved" not in each]
    if row["status"] != "paused" or not waiting:
        return
    typer.echo("\nwaits for a person:")
    told = [{**each, "arguments": _json_text(each["arguments"]), "question": _question(each)} for each in waiting]
    show_table(told, ("call_id", "name", "arguments", "question"), nothing="")
    typer.echo("\ndecide with:")
    for each in waiting:
        typer.echo(f"pgrun approve {row['run_id']} --call {each['call_id']}{_needs(each)}")
    typer.echo(f"pgrun reject {row['run_id']} --note WHY")


def show_decided(row: Row) -> None:
    """Prints what people have decided on the calls of a run, and who; nothing where nobody has."""
    decided = [each for each in row["requirements"] or () if "approved" in each]
    if not decided:
        return
    typer.echo("\ndecided by people:")
    told = [
        {
            **each,
            "decision": "approved" if each["approved"] else "rejected",
            "by": each.get("decided_by"),
            "at": datetime.fromisoformat(each["decided_at"]) if "decided_at" in each else None,
            "note": each.get("note"),
        }
        for each in decided
    ]
    show_table(told, ("call_id", "name", "decision", "by", "at", "note"), nothing="")


async def _decide(run_id: str, decision: dict[str, Any], database_url: str | None, schema: str, as_json: bool) -> None:
    from pgrun._ids import check_run_id

    decision["decided_by"] = decision["decided_by"] or _own_name()
    if decision.get("input") is not None:
        decision["input"] = _values(decision["input"])
    async with open_db(database_url, schema) as db:
        status = await (await db.connected()).verbs.approve(check_run_id(run_id), decision)
    if as_json:
        show_json({"run_id": run_id, "status": status})
    else:
        typer.echo(f"{run_id} {status}")


def _own_name() -> str | None:
    """Of whoever typed the command; None if this machine has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as containers have
        return None


def _values(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--input is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise UsageError("--input must be a JSON object")
    return values


def _question(requirement: Mapping[str, Any]) -> str:
    question, problem = _QUESTIONS[requirement["kind"]], requirement.get("problem")
    return f"{problem}. {question}" if problem else question


def _needs(requirement: Mapping[str, Any]) -> str:
    """What the command has to say beside yes."""
    match requirement["kind"]:
        case "external":
            return " --result TEXT"
        case "repeat":
            return " [--result TEXT]"
        case "user_input":
            values = {field["name"]: "…" for field in requirement["fields"]}
            return f" --input '{_json_text(values)}'"
        case _:
            return ""


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
