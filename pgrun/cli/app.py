"""The command `pgrun`: its list of commands. Each stays fast by importing what it needs when it runs."""

import typer

from pgrun.cli import demo, operate, runs

app = typer.Typer(
    name="pgrun",
    help="Durable background runs for LLM agents, on the Postgres that a service already has.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (
    *(demo.demo, operate.migrate, operate.worker),
    *(runs.submit, runs.ls, runs.show, runs.wait, runs.steer, runs.cancel, runs.retry),
    *(operate.prune, operate.stats),
):
    app.command()(command)


def main() -> None:
    """Entry point of the console script."""
    app()
