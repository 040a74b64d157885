"""Writes the endings of runs in as few statements as the load allows: at once when it is idle, together while it is busy."""

from dataclasses import dataclass, replace

import anyio

from pgrun.db.verbs import Ending, Verbs
from pgrun.errors import UsageError

_BATCH = 200  # as many ids as fit into one notification


class Flusher:
    """Group commit: whoever comes while a write is under way waits for it, and the first of them then writes for all.

    The slot of a run stays taken until its ending is acknowledged, which is the back-pressure.
    """

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs
        self._pending: list[_Entry] = []
        self._writing = anyio.Lock()

    async def finish(self, ending: Ending) -> bool:
        """Writes an ending and returns whether it counts; False means that the claim was stale and nothing changed.

        Raises:
            DatabaseError: It could not be written; calling again is safe.
        """
        entry = _Entry(ending)
        self._pending.append(entry)
        try:
            async with self._writing:
                if entry.accepted is None:  # else somebody wrote it for us
                    await self._write(self._take(entry))
        finally:
            if entry in self._pending:
                self._pending.remove(entry)
        assert entry.accepted is not None
        return entry.accepted

    def _take(self, first: "_Entry") -> list["_Entry"]:
        others = [entry for entry in self._pending if entry is not first]
        batch = [first, *others[: _BATCH - 1]]
        self._pending = others[_BATCH - 1 :]
        return batch

    async def _write(self, batch: list["_Entry"]) -> None:
        try:
            accepted = await self._verbs.finish([entry.ending for entry in batch])
        except UsageError as error:
            await self._write_singly(batch, error)
            return
        except BaseException:
            # The others try for themselves, each with its own patience.
            self._pending.extend(batch[1:])
            raise
        for entry in batch:
            entry.accepted = entry.ending.claimed.run_id in accepted

    async def _write_singly(self, batch: list["_Entry"], error: UsageError) -> None:
        """One of them has a value that the database does not take; it must not keep the others from being written."""
        if len(batch) > 1:
            for entry in batch:
                await self._write([entry])
            return
        (entry,) = batch
        if entry.ending.status == "error":
            raise error
        entry.ending = _unstorable(entry.ending, error)
        await self._write([entry])


@dataclass(eq=False)
class _Entry:
    ending: Ending
    accepted: bool | None = None


def _unstorable(ending: Ending, error: UsageError) -> Ending:
    details = {"type": "OutputInvalid", "message": f"the output cannot be stored: {error}"}
    return replace(ending, status="error", output=None, content_type=None, error=details)
