"""The command `pgrun`: its list of commands. Each stays fast by importing what it needs when it runs."""

import gc
from typing import Annotated

import typer

from pgrun.cli import decide, demo, intervene, operate, queues, runs, schedules, streams, submit

app = typer.Typer(
    name="pgrun",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (
    *(demo.demo, operate.migrate, operate.worker),
    *(submit.submit, runs.ls, runs.show, runs.wait, streams.tail),
    *(intervene.steer, intervene.cancel, intervene.retry),
    *(decide.approve, decide.reject),
    *(queues.pause, queues.resume),
    *(operate.prune, operate.stats),
):
    app.command()(command)
app.add_typer(queues.app, name="queues")
app.add_typer(schedules.app, name="schedules")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("pgrun"))
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="The version.")] = False,
) -> None:
    """Durable background runs for LLM agents, on the Postgres that a service already has."""


def main() -> None:
    """Entry point of the console script."""
    gc.disable()  # a command imports much and drops nothing of it: looking for garbage meanwhile takes a tenth of its time
    app()
