"""Waiting for many runs: ids and handles of any agents and tasks, each read as whoever made its handle reads it."""

import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from functools import partial
from typing import Any, Generic, Literal, TypeVar, overload

import anyio

from pgrun._ids import check_run_id
from pgrun._sync import iterate_sync, run_sync
from pgrun.db._connection import Row
from pgrun.db.hearing import Hears
from pgrun.db.verbs import Verbs
from pgrun.db.waiting import check_timeout, not_found
from pgrun.errors import UsageError
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


class Awaits(Hears):
    """These methods of `PostgresDb`."""

    @overload
    async def await_runs(
        self,
        runs: Iterable[Run[T] | RunOutput[T]],
        *,
        timeout: float | None = None,
        mode: Literal["all", "any"] = "all",
    ) -> list[RunOutput[T]]: ...
    @overload
    async def await_runs(
        self,
        runs: Iterable[str | Run[Any] | RunOutput[Any]],
        *,
        timeout: float | None = None,
        mode: Literal["all", "any"] = "all",
    ) -> list[RunOutput[Any]]: ...
    async def await_runs(
        self,
        runs: Iterable[str | Run[Any] | RunOutput[Any]],
        *,
        timeout: float | None = None,
        mode: Literal["all", "any"] = "all",
    ) -> list[RunOutput[Any]]:
        """Waits for many runs with one subscription and one query.

        Args:
            runs: Runs of any agents or tasks, or their ids.
            timeout: Seconds to wait at most.
            mode: ``"all"`` waits until every run has ended, ``"any"`` until one has.

        Returns:
            The runs that have ended, in the order of `runs`, however they ended; content typed, of a mere id as stored.

        Raises:
            WaitTimeout: They have not ended in time; the message names one of them.
            RunNotFound: One of them does not exist.
        """
        if mode not in ("all", "any"):
            raise UsageError(f'mode={mode!r}: choose "all" or "any"')
        wanted = Awaited(runs)
        rows = await self._wait(wanted.run_ids, timeout, first=mode == "any")
        return [wanted.read(rows[run_id]) for run_id in wanted.run_ids if run_id in rows]

    @overload
    def wait_runs(
        self,
        runs: Iterable[Run[T] | RunOutput[T]],
        *,
        timeout: float | None = None,
        mode: Literal["all", "any"] = "all",
    ) -> list[RunOutput[T]]: ...
    @overload
    def wait_runs(
        self,
        runs: Iterable[str | Run[Any] | RunOutput[Any]],
        *,
        timeout: float | None = None,
        mode: Literal["all", "any"] = "all",
    ) -> list[RunOutput[Any]]: ...
    def wait_runs(
        self,
        runs: Iterable[str | Run[Any] | RunOutput[Any]],
        *,
        timeout: float | None = None,
        mode: Literal["all", "any"] = "all",
    ) -> list[RunOutput[Any]]:
        """The same as `await_runs`, for code without an event loop."""
        return run_sync(partial(self.await_runs, runs, timeout=timeout, mode=mode))

    @overload
    def as_completed(
        self, runs: Iterable[Run[T] | RunOutput[T]], *, timeout: float | None = None
    ) -> Completions[T]: ...
    @overload
    def as_completed(
        self, runs: Iterable[str | Run[Any] | RunOutput[Any]], *, timeout: float | None = None
    ) -> Completions[Any]: ...
    def as_completed(
        self, runs: Iterable[str | Run[Any] | RunOutput[Any]], *, timeout: float | None = None
    ) -> Completions[Any]:
        """Many runs in the order in which they end, with one subscription: ``async for run in db.as_completed(runs)``.

        In code without an event loop ``for run in db.as_completed(runs)``.

        Args:
            runs: Runs of any agents or tasks, or their ids.
            timeout: Seconds in which all have to end.

        Raises:
            WaitTimeout: They have not ended in time; raised by the iteration, like the others.
            RunNotFound: One of them does not exist.
        """
        check_timeout(timeout)
        return Completions(partial(self._complete, Awaited(runs), timeout))

    async def _complete(self, wanted: Awaited, timeout: float | None) -> AsyncGenerator[RunOutput[Any], None]:
        open_ids, deadline = (
            dict.fromkeys(wanted.run_ids),
            math.inf if timeout is None else anyio.current_time() + timeout,
        )
        waiting = (await self._with_waiters()).waiting
        async with aclosing(waiting.each(wanted.run_ids, deadline)) as rows:
            async for row in rows:
                del open_ids[str(row["run_id"])]
                yield wanted.read(row)
        if open_ids:  # one last look, as when waiting for one
            for row in (await self._wait([*open_ids], 0, first=False)).values():
                yield wanted.read(row)
