"""What tests of programs do with a real queue: execute what is due here and now, look at what was submitted, let time pass.

The queue, the worker and the database are the real ones; only when things happen is up to the test. Give the program a
``PostgresDb(…, worker="external")``, so that nobody else executes its runs. For code without an event loop the same is in
`pgrun.testing.sync`.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import anyio

from pgrun.agent import Agent
from pgrun.db.postgres import PostgresDb
from pgrun.run._storable import to_jsonable
from pgrun.run.base import RunOutput, output_from_row
from pgrun.task import Task
from pgrun.worker.worker import Worker

_LOOK = 0.003  # seconds between looks at what is left to do
_SHOWN = 10  # runs in the message of a failed assertion
_LOOKED_AT = 1000
_ANYTHING = object()


async def drain(db: PostgresDb, *, retries: bool = False, timeout: float = 30.0) -> list[RunOutput[Any]]:
    """Executes in this process all runs that are due, those that they submit, and ticks of schedules, until none is left.

    What is due later is left alone, see `advance`; so is what waits for a person, or is in a paused queue.

    Args:
        db: Where they are.
        retries: Make failed attempts again at once, however long their policy would wait, until each run has ended.
        timeout: Seconds it may take.

    Returns:
        The runs that have ended, in that order, however they ended; content as stored.

    Raises:
        TimeoutError: It took longer; what was running is given back.
    """
    verbs = (await db.connected()).verbs
    queues = {row["queue"] for row in await verbs.queue_stats()} | {"default"}
    with anyio.fail_after(timeout):
        async with Worker(db, queues=queues) as worker:
            while True:
                work = await verbs.find_work(worker.worker_id, [*queues])
                if not work["busy"] and not (retries and work["waiting"]):
                    break
                for run_id in work["waiting"] if retries else ():
                    await verbs.retry_ended(run_id)
                await anyio.sleep(_LOOK)
    rows = [await verbs.get(run_id) for run_id in work["ended"]]
    return [output_from_row(row, row["output"], None) for row in rows if row]


@contextmanager
def inline(db: PostgresDb) -> Iterator[None]:
    """While the block runs, whoever submits a run has it executed before the submit returns, with all its attempts.

    Not what is submitted within a transaction of the caller's, which nobody sees before it commits.

    Args:
        db: Through which the program submits. It executes nothing by itself meanwhile.
    """
    mode, db.worker = db.worker, "external"
    names = ("submit", "submit_call", "submit_calls", "place")
    for name in names:
        setattr(db, name, _and_drain(db, getattr(db, name)))
    try:
        yield
    finally:
        db.worker = mode
        for name in names:
            delattr(db, name)


async def advance(db: PostgresDb, by: float | timedelta) -> None:
    """Lets time pass for everything in the database, without waiting: each moment of each row is moved back.

    Then runs with a delay, retries and ticks of schedules are due that would have been, for `drain` to execute; a tick of a
    schedule is called by the moment to which it was moved. What has ended has ended longer ago. Leases of workers stay.

    Args:
        db: The database of a test: all that is in it is moved.
        by: Seconds, or a timedelta.
    """
    seconds = by.total_seconds() if isinstance(by, timedelta) else by
    await (await db.connected()).verbs.advance_moments(seconds)


async def assert_submitted(
    db: PostgresDb, target: Task[Any, Any] | Agent[Any] | str, input: Any = _ANYTHING, /, **arguments: Any
) -> RunOutput[Any]:
    """Fails unless a run of an agent or a task was submitted with this input or these arguments, whatever became of it.

    Args:
        db: Where it is.
        target: The agent or task, or its name.
        input: What the agent was asked; left out it may be anything.
        **arguments: Of a task; those that are left out may be anything.

    Returns:
        The latest such run; content as stored.

    Raises:
        AssertionError: There is none; the message says what was submitted.
    """
    name = target if isinstance(target, str) else target.name
    verbs = (await db.connected()).verbs
    found = await verbs.find_submitted(name, max_rows=_LOOKED_AT)
    whole = None if input is _ANYTHING else (to_jsonable(input),)
    wanted = to_jsonable(arguments)
    for run in found:
        if _fits(run["input"], whole, wanted) and (row := await verbs.get(run["run_id"])):
            return output_from_row(row, row["output"], None)
    shown = "".join(f"\n  {run['input']!r:.200}" for run in found[:_SHOWN]) or " nothing"
    given = ([] if whole is None else [repr(input)]) + [f"{key}={value!r}" for key, value in arguments.items()]
    raise AssertionError(f"no run {name}({', '.join(given)}) was submitted, but{shown}")


def _fits(stored: Any, whole: tuple[Any] | None, wanted: Mapping[str, Any]) -> bool:
    if whole is not None and stored != whole[0]:
        return False
    return not wanted or (isinstance(stored, dict) and wanted.items() <= stored.items())


def _and_drain(db: PostgresDb, submit: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def submit_and_drain(*args: Any, **kwargs: Any) -> Any:
        submitted = await submit(*args, **kwargs)
        await drain(db, retries=True)
        return submitted

    return submit_and_drain
