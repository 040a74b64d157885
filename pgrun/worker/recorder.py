"""Writes what became of runs, until the database has it: endings in as few statements as the load allows.

Group commit: endings that arrive while a write is under way are written together by the next one, so one alone is written at
once and a flood in batches. Whoever waits for a slot waits for the write: that is the back-pressure.
"""

import logging
from collections.abc import Callable, Iterable

import anyio

from pgrun import events
from pgrun.db.records import Claimed, Ending
from pgrun.db.verbs import Verbs
from pgrun.errors import DatabaseError
from pgrun.run._storable import storable_text
from pgrun.worker.decision import Leave, Park, Pause, Release, Retry
from pgrun.worker.failure import unforeseen

_log = logging.getLogger("pgrun.worker")

_BATCH = 1000  # endings per statement
_BATCH_BYTES = 8_000_000  # of outputs, about
_PAUSE = 1.0  # seconds between tries while the database is away


class Recorder:
    """The outcomes of one worker's attempts on their way to the database.

    Args:
        verbs: The database.
        on_written: Called with the claims whose ending was written, or whose writing was given up.
    """

    def __init__(self, verbs: Verbs, on_written: Callable[[Iterable[Claimed]], None]) -> None:
        self._verbs = verbs
        self._on_written = on_written
        self._pending: list[Ending] = []
        self._arrived = anyio.Event()
        self._is_patient = True
        self._closing = False

    def finish(self, ending: Ending) -> None:
        """Takes an ending to be written; returns at once."""
        self._pending.append(ending)
        self._arrived.set()

    async def put_off(self, claimed: Claimed, decision: Retry | Release | Leave | Park | Pause) -> None:
        """Makes a run due again, or lets it wait; returns when that is written."""
        while True:
            try:
                await self._put_off(claimed, decision)
                return
            except DatabaseError as error:
                if self._given_up(claimed, error):
                    return
            except (
                Exception
            ) as error:  # a value that the database refuses, or a fault of ours: it must not end the worker
                await self._write([unforeseen(claimed, error)])
                return
            await anyio.sleep(_PAUSE)

    def lose_patience(self) -> None:
        """From now on nothing waits for a database that is away: the worker leaves."""
        self._is_patient = False

    def close(self) -> None:
        """Lets `write_endings` return once it has tried to write what is pending; nothing may come any more."""
        self._closing = True
        self._arrived.set()

    async def write_endings(self) -> None:
        """Writes until it is closed; a cancellation does not stop it, because what was paid for must not be lost."""
        with anyio.CancelScope(shield=True):
            while self._pending or not self._closing:
                if self._pending:
                    await self._write(self._take())
                else:
                    self._arrived = anyio.Event()
                    await self._arrived.wait()

    def _take(self) -> list[Ending]:
        """The next batch. A run is in it once only: a late ending of an attempt before must not displace the one that counts."""
        weight, run_ids = 0, set[str]()
        for ending in self._pending:
            weight += len(ending.output) if isinstance(ending.output, bytes) else 0
            if len(run_ids) == _BATCH or (run_ids and weight > _BATCH_BYTES) or ending.claimed.run_id in run_ids:
                break
            run_ids.add(ending.claimed.run_id)
        batch, self._pending = self._pending[: len(run_ids)], self._pending[len(run_ids) :]
        return batch

    async def _write(self, batch: list[Ending]) -> None:
        while True:
            try:
                accepted = await self._verbs.finish(batch)
                released = await self._release_unheard(batch, accepted)
            except DatabaseError as error:
                batch = [ending for ending in batch if not self._given_up(ending.claimed, error)]
                if not batch:
                    return
                await anyio.sleep(_PAUSE)
            except Exception as error:
                await self._write_singly(batch, error)
                return
            else:
                for ending in batch:
                    run_id = ending.claimed.run_id
                    verb = "released" if run_id in released else ending.status
                    _tell(ending.claimed, verb, counts=run_id in accepted or run_id in released)
                self._on_written([ending.claimed for ending in batch])
                return

    async def _release_unheard(self, batch: list[Ending], accepted: set[str]) -> set[str]:
        """Of those that were not accepted gives back the runs that have not heard all that was said to them; their ids."""
        refused = [ending for ending in batch if ending.answer and ending.claimed.run_id not in accepted]
        return {ending.claimed.run_id for ending in refused if await self._verbs.release_unheard(ending)}

    async def _write_singly(self, batch: list[Ending], error: Exception) -> None:
        """One of them has a value that the database does not take; it must not keep the others from being written."""
        if len(batch) > 1:
            for ending in batch:
                await self._write([ending])
            return
        (ending,) = batch
        bare = _unstorable(ending, error)
        if bare == ending:
            _log.error("%r: its outcome cannot be written: %s", ending.claimed, error)
            self._on_written([ending.claimed])
        else:
            await self._write([bare])

    def _given_up(self, claimed: Claimed, error: DatabaseError) -> bool:
        """Whether an outcome is not written any more because the worker leaves."""
        if self._is_patient:
            _log.warning("%r: its outcome is not written yet: %s", claimed, error)
            return False
        _log.error("%r: its outcome could not be written, it will be repeated: %s", claimed, error)
        self._on_written([claimed])
        return True

    async def _put_off(self, claimed: Claimed, decision: Retry | Release | Leave | Park | Pause) -> None:
        match decision:
            case Retry(delay, error, metrics, keeps_call):
                status = await self._verbs.retry(
                    claimed, delay=delay, error=error, metrics=metrics, keeps_call=keeps_call
                )
                _log.warning("%r failed, next attempt in %.1f s: %s", claimed, delay, error["message"])
                _tell(claimed, "retried", counts=status is not None)
            case Release(delay, error, metrics, keeps_call):
                held = [(claimed.run_id, claimed.fence)]
                released = await self._verbs.release(
                    held, delay=delay, error=error, metrics=metrics, keeps_call=keeps_call
                )
                _log.warning("%r is put off for %.0f s: %s", claimed, delay, error["message"])
                _tell(claimed, "released", counts=bool(released))
            case Park(metrics):
                _tell(claimed, "parked", counts=await self._verbs.park(claimed, metrics=metrics))
            case Pause(requirements, holds_session, metrics, tools):
                status = await self._verbs.pause(
                    claimed, requirements, holds_session=holds_session, metrics=metrics, tools=tools
                )
                _tell(claimed, "paused", counts=status is not None)
            case Leave(delay, metrics, parks):
                held = [(claimed.run_id, claimed.fence)]
                released = await self._verbs.release(held, delay=delay, metrics=metrics, parks=parks)
                _tell(claimed, "parked" if parks else "released", counts=bool(released))


def _tell(claimed: Claimed, verb: str, *, counts: bool) -> None:
    if counts:
        events.emit(verb, run_id=claimed.run_id, fence=claimed.fence)
    else:
        events.emit("stale", run_id=claimed.run_id, fence=claimed.fence)
        _log.warning("%r: another worker has taken over, this outcome (%s) is not written", claimed, verb)


def _unstorable(ending: Ending, error: Exception) -> Ending:
    """What can be written for certain: that the run failed, and why not more is known."""
    kind = ending.error["type"] if ending.error else "OutputInvalid"
    message = storable_text(f"the {'error' if ending.error else 'output'} cannot be stored: {error}")
    return Ending(ending.claimed, "error", error={"type": kind, "message": message})
