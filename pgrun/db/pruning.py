"""Pruning: deletes ended runs batch by batch, and leaves the database to its other work in between."""

import time
from dataclasses import asdict, dataclass
from itertools import count

import anyio

from pgrun._durations import is_duration
from pgrun.db.verbs import Verbs
from pgrun.errors import UsageError

_BATCH = 1000  # runs in one transaction: tens of milliseconds, unless their answers are very long
_SHORTEST_PAUSE = 0.01  # seconds

_ENDED = ("completed", "error", "cancelled")


@dataclass(frozen=True, kw_only=True)
class Prunable:
    """Which runs may go; checked, because what is deleted by mistake is gone.

    Raises:
        UsageError: A field cannot be; an empty text is no filter, it is a mistake.
    """

    older_than: float
    """Seconds since they ended, by the database's clock."""
    status: str | None = None
    """Only completed, error or cancelled ones; None: all three."""
    queue: str | None = None
    """Only those of one queue; None: of all."""
    name: str | None = None
    """Only those of one agent or task; None: of all."""

    def __post_init__(self) -> None:
        if not is_duration(self.older_than):
            raise UsageError(f"older_than={self.older_than!r}: seconds since a run ended, 0 or more, at most a century")
        if self.status is not None and self.status not in _ENDED:
            raise UsageError(
                f"status={self.status!r}: choose completed, error or cancelled; open runs are never pruned"
            )
        if self.queue is not None and (not isinstance(self.queue, str) or not self.queue):
            raise UsageError(f"queue={self.queue!r}: the name of a queue, or None for all")
        if self.name is not None and (not isinstance(self.name, str) or not self.name):
            raise UsageError(f"name={self.name!r}: the name of an agent or a task, or None for all")


async def prune(verbs: Verbs, which: Prunable, *, max_batches: int | None = None) -> int:
    """Deletes these runs and returns how many they were.

    It pauses after each batch for as long as the batch took, so it keeps at most half of one connection busy. Runs that
    others have locked are left. Cancelled, it stops after the batch; what was deleted stays so.

    Args:
        verbs: The database.
        which: What may go.
        max_batches: Ends after so many batches, whatever is left; None: when nothing is.
    """
    pruned, after = 0, None
    for _ in count() if max_batches is None else range(max_batches):
        started = time.monotonic()
        deleted, after = await verbs.prune(**asdict(which), after=after, batch=_BATCH)
        pruned += deleted
        if after is None:
            break
        await anyio.sleep(max(time.monotonic() - started, _SHORTEST_PAUSE))
    return pruned
