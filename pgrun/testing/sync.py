"""The functions of `pgrun.testing` that touch the database, for tests without an event loop: the same names, without await."""

from datetime import timedelta
from functools import partial
from typing import Any

from pgrun._sync import run_sync
from pgrun.agent import Agent
from pgrun.db.postgres import PostgresDb
from pgrun.run.base import RunOutput
from pgrun.task import Task
from pgrun.testing import runs
from pgrun.testing.runs import inline

__all__ = ["advance", "assert_submitted", "drain", "inline"]


def drain(db: PostgresDb, *, retries: bool = False, timeout: float = 30.0) -> list[RunOutput[Any]]:
    """The same as `pgrun.testing.drain`."""
    return run_sync(partial(runs.drain, db, retries=retries, timeout=timeout))


def advance(db: PostgresDb, by: float | timedelta) -> None:
    """The same as `pgrun.testing.advance`."""
    run_sync(runs.advance, db, by)


def assert_submitted(
    db: PostgresDb, target: Task[Any, Any] | Agent[Any] | str, /, *input: Any, **arguments: Any
) -> RunOutput[Any]:
    """The same as `pgrun.testing.assert_submitted`."""
    return run_sync(partial(runs.assert_submitted, db, target, *input, **arguments))
