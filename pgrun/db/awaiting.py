"""Waiting for many runs: ids and handles of any agents and tasks, each read as whoever made its handle reads it."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from pgrun._ids import check_run_id
from pgrun._sync import iterate_sync
from pgrun.db._connection import Row
from pgrun.db.verbs import Verbs
from pgrun.db.waiting import not_found
from pgrun.run.base import Run, RunHandle, RunOutput, output_from_row

T = TypeVar("T")


class Awaited:
    """Runs that somebody waits for.

    Raises:
        UsageError: One of them is no run, and no id of one.
    """

    def __init__(self, runs: Iterable[str | Run[Any] | RunOutput[Any]]) -> None:
        self.run_ids: list[str] = []
        self._handles: dict[str, RunHandle | None] = {}
        for run in runs:
            known = run if isinstance(run, Run | RunOutput) else None
            run_id = check_run_id(known.run_id if known else run)
            self.run_ids.append(run_id)
            self._handles[run_id] = (known._handle if known else None) or self._handles.get(run_id)

    def read(self, row: Row) -> RunOutput[Any]:
        """A run as its handle reads it; with nothing but its id the content is as stored."""
        handle = self._handles[str(row["run_id"])]
        return output_from_row(row, row["output"], None) if handle is None else handle.read(row)


async def look_at(verbs: Verbs, run_id: str) -> Row:
    """The row of a run as it stands.

    Raises:
        RunNotFound: There is no such run.
    """
    row = await verbs.get(run_id)
    if row is None:
        raise not_found(run_id)
    return row


class Completions(Generic[T]):
    """Runs in the order in which they end: ``async for run in …``, or ``for run in …`` in code without an event loop."""

    def __init__(self, outputs: Callable[[], AsyncGenerator[RunOutput[T], None]]) -> None:
        self._outputs = outputs

    def __aiter__(self) -> AsyncIterator[RunOutput[T]]:
        return self._outputs()

    def __iter__(self) -> Iterator[RunOutput[T]]:
        return iterate_sync(self._outputs)
