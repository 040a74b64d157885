"""How far the tasks of a worker say that they have come, on its way to the database: now and then, in one statement for all.

It is news and nothing more: what cannot be written is left out, and nobody waits for it but a run that ends.
"""

import logging
from collections.abc import Callable, Collection
from typing import Any

import anyio

from pgrun.db.records import Claimed
from pgrun.db.verbs import Verbs
from pgrun.errors import PgrunError

_log = logging.getLogger("pgrun.worker")

_EVERY = 0.5  # seconds between writes
_RUNS = 200  # per statement, which is what fits into a notification
_PATIENCE = 1.0  # seconds for which the end of a run waits
_TRIES = 3  # before it does not
_LOCKED = 0.02  # seconds between them

Key = tuple[str, int]
"""Of an attempt: run_id and fence."""

Notes = dict[Key, dict[str, Any]]

CallSoon = Callable[[Callable[[], object]], object]
"""Calls a function in the event loop; may be called in any thread."""


class ProgressNotes:
    """What the tasks of one worker have said last, until it is written.

    Args:
        verbs: The database.
        call_soon: Of the worker's event loop.
    """

    def __init__(self, verbs: Verbs, call_soon: CallSoon) -> None:
        self._verbs = verbs
        self._call_soon = call_soon
        self._open = set[Key]()
        self._said: Notes = {}
        self._taken: Collection[Key] = ()
        self._written = anyio.Event()
        self._arrived = anyio.Event()
        self._is_waiting = False

    def open(self, claimed: Claimed) -> None:
        """From now on the run may say something, until it is settled."""
        self._open.add((claimed.run_id, claimed.fence))

    def note(self, claimed: Claimed, progress: dict[str, Any]) -> None:
        """Takes what a run says; returns at once, in any thread."""
        # Noted first and looked afterwards, while the writer says first that it waits and looks here afterwards.
        self._said[claimed.run_id, claimed.fence] = progress
        if self._is_waiting:
            self._is_waiting = False
            self._call_soon(lambda: self._arrived.set())

    async def settle(self, claimed: Claimed) -> None:
        """Writes what a run has said last, before its attempt ends; not for long if that cannot be done."""
        key = (claimed.run_id, claimed.fence)
        with anyio.move_on_after(_PATIENCE, shield=True):
            if key in self._taken:  # it is being written just now, and would come too late once the run has ended
                await self._written.wait()
        self._open.discard(key)
        if said := self._said.pop(key, None):
            with anyio.move_on_after(_PATIENCE, shield=True):
                for _ in range(_TRIES):
                    if not await self._write({key: said}):
                        break
                    await anyio.sleep(_LOCKED)

    async def write_forever(self) -> None:
        """Writes until it is cancelled."""
        while True:
            self._arrived = anyio.Event()
            self._is_waiting = True
            if not self._said:
                await self._arrived.wait()
            self._is_waiting = False
            taken = {key: self._said.pop(key) for key in [*self._said][:_RUNS]}
            self._taken, self._written = taken.keys(), anyio.Event()
            for key in await self._write(taken):
                if key in self._open:
                    self._said.setdefault(key, taken[key])
            self._taken = ()
            self._written.set()
            await anyio.sleep(_EVERY)

    async def _write(self, progress: Notes) -> Collection[Key]:
        """Those that were not written: stale, or somebody else has locked their row just now."""
        try:
            noted = await self._verbs.write_progress(progress)
        except PgrunError as error:
            _log.warning("the progress of %s runs is not written: %s", len(progress), error)
            return ()
        return [key for key in progress if key[0] not in noted]
