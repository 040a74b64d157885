"""Commands of pgrun within the process of a test: what an operator types, called without half a second to start Python."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import CompletedProcess

from typer.testing import CliRunner

from pgrun.cli.app import app


class Commands:
    """Calls ``pgrun …`` as the entry point does; returns what a process that has ended is known by.

    Not for what only a process has: signals, an interrupt, a pipe, a worker that works.

    Args:
        environ: Added to the environment of each command.
    """

    def __init__(self, **environ: str) -> None:
        self._environ = environ

    def __call__(self, *words: str, **environ: str) -> "CompletedProcess[str]":
        """Its output and its exit code; an error that would reach the terminal as a traceback is raised."""
        with _state_of_a_process():
            done = CliRunner().invoke(app, list(words), env={**self._environ, **environ}, prog_name="pgrun")
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return CompletedProcess(list(words), done.exit_code, done.stdout, done.stderr)


@contextmanager
def _state_of_a_process() -> Iterator[None]:
    """Logging as it is in a new process; it and the path of imports are what they were when the command has ended."""
    root, path = logging.getLogger(), sys.path[:]
    handlers, levels = root.handlers[:], {logger: logger.level for logger in _loggers()}
    root.handlers[:] = []
    try:
        yield
    finally:
        root.handlers[:] = handlers
        sys.path[:] = path
        for logger in _loggers():
            logger.setLevel(levels.get(logger, logging.NOTSET))


def _loggers() -> list[logging.Logger]:
    known = logging.getLogger().manager.loggerDict.values()
    return [logging.getLogger(), *(logger for logger in known if isinstance(logger, logging.Logger))]
