"""Where a worker begins to look in each queue: at its first run, or, where that has become slow, where it claimed last.

While someone holds an old snapshot, a report or a forgotten transaction, Postgres cannot remove the index entries of runs
that have been claimed since, and a look from the first walks over all of them. A look from the last position does not, but may
overlook a run that became visible behind it: one with a smaller priority, or whose transaction took long to commit. So this is
done only under a backlog and while it pays, and every now and then there is a look from the first all the same.
"""

import time
from collections.abc import Mapping, Sequence

from pgrun.db.records import FIRST, Claimed, Position

_SLOW = 0.01  # seconds that a look from the first may take
_SLACK = 0.05  # seconds by which transactions commonly overtake each other
_FROM_FIRST_EVERY = 0.02  # seconds; a run behind the position waits that long at most ...
_SHARE = 20  # ... unless looks from the first would cost more than one part in so many of the time


class Cursor:
    """The positions of one worker."""

    def __init__(self) -> None:
        self._last: dict[str, Position] = {}
        self._from_first_at = 0.0
        self._usual = 0.0  # seconds that a look from the last position takes
        self._pays = False
        self._filled = False

    @property
    def positions(self) -> Mapping[str, Position]:
        """Where the next look begins in each queue; in one that is not named at its first run."""
        if not (self._pays or self._filled) or time.monotonic() >= self._from_first_at:
            return {}
        return {queue: (priority, due_at - _SLACK) for queue, (priority, due_at) in self._last.items()}

    def looked(self, claimed: Sequence[Claimed], seconds: float, *, from_first: bool, filled: bool) -> None:
        """Notes how a look went.

        Args:
            claimed: What it found.
            seconds: How long it took.
            from_first: Whether it began at the first run of each queue.
            filled: It found as many as it asked for, so there may be more right behind them.
        """
        found: dict[str, Position] = {}
        for run in claimed:
            found[run.queue] = max(found.get(run.queue, FIRST), (run.priority, run.due_at))
        for queue, position in found.items():
            # Back to a smaller priority only where there is a backlog of it.
            self._last[queue] = position if from_first and filled else max(self._last.get(queue, FIRST), position)
        self._filled = filled
        if from_first:
            self._pays = seconds > max(_SLOW, 2 * self._usual)
            extra = seconds - self._usual
            self._from_first_at = time.monotonic() + max(_FROM_FIRST_EVERY, _SHARE * extra)
        else:
            self._usual = seconds
            if not claimed:  # before it rests, it makes sure
                self._from_first_at = 0.0
