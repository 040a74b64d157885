"""The command about streams: tail."""

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgrun.cli._shared import AsJson, DatabaseUrl, RunId, Schema, open_db, run
from pgrun.cli._show import show_json

if TYPE_CHECKING:
    from pgrun.run.event import RunEvent


def tail(
    run_id: RunId,
    after: Annotated[int, typer.Option(help="Number of the last event you have seen.")] = 0,
    database_url: DatabaseUrl = None,
    schema: Schema = "pgrun",
    as_json: AsJson = False,
) -> None:
    """Show what happens to a run, its text as it comes, until it ends or pauses. Fails if the run failed."""

    async def command() -> int:
        from pgrun._ids import check_run_id
        from pgrun.run.event import Shape, check_after
        from pgrun.streaming import read_events

        printer, ended_well = _Printer(), True
        async with open_db(database_url, schema) as db:
            events = read_events(db, check_run_id(run_id), check_after(after), Shape())
            async with aclosing(events):
                async for event in events:
                    show_json(event) if as_json else printer.show(event)
                    ended_well = event.kind not in ("error", "cancelled")
        return 0 if ended_well else 1

    run(command)


class _Printer:
    """Prints text as it comes, and everything else in lines of its own."""

    def __init__(self) -> None:
        self._is_in_text = False

    def show(self, event: "RunEvent") -> None:
        if event.kind in ("text", "thought"):
            typer.echo(typer.style(event.data["text"], dim=event.kind == "thought"), nl=False)
            self._is_in_text = True
            return
        line = typer.style(f"{event.seq:>5} {event.kind} {_told(event)}".rstrip(), dim=True)
        typer.echo(f"\n{line}" if self._is_in_text else line)
        self._is_in_text = False


def _told(event: "RunEvent") -> str:
    """What there is to say of an event in a line."""
    data: dict[str, Any] = event.data
    match event.kind:
        case "started":
            return f"attempt {event.attempt}"
        case "tool_call_announced":
            return str(data["name"])
        case "tool_call_started":
            return f"{data['name']} {data['arguments']}"
        case "tool_call_completed":
            return f"{data['name']} {data.get('result') or data.get('error') or ''}"
        case "model_call_completed":
            return f"{data['model']} {data['usage'].get('total_tokens', 0)} tokens"
        case "progress":
            share = "" if data.get("fraction") is None else f"{data['fraction']:.0%} "
            return f"{share}{data.get('message', '')}"
        case "retried" | "released" | "error":
            return str((data.get("error") or {}).get("message", ""))
        case "parked":
            return f"waits for its {data['waits_for']}"
        case _:
            return ""
