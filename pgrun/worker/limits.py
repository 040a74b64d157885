"""How long an attempt may take: its time-out, and what is left until the deadline of its run, on the clock of the database."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio

from pgrun.db.records import Claimed
from pgrun.errors import AttemptError, AttemptTimeout, DeadlineExceeded

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Those of one attempt; None is none.

    Attributes:
        timeout: Seconds.
        time_left: Seconds until the deadline, from the claim on; not more than 0 if it had passed.
    """

    timeout: float | None
    time_left: float | None

    @classmethod
    def of(cls, claimed: Claimed, declared: float | None) -> "Limits | None":
        """The limits of a claimed run whose task was declared with a time-out; None if there are none, as mostly."""
        timeout = declared if claimed.timeout is None else claimed.timeout
        return None if timeout is claimed.time_left is None else cls(timeout, claimed.time_left)

    async def hold(self, work: Callable[[], Awaitable[T]]) -> T:
        """What the work returns; it is cancelled when it takes too long, and not begun when the deadline has passed.

        Raises:
            AttemptTimeout: It took longer than the time-out.
            DeadlineExceeded: It was not done at the deadline.
        """
        seconds, error = min(self._ends(), key=lambda end: end[0])
        if seconds > 0:
            with anyio.move_on_after(seconds):
                return await work()
        raise error

    def allows(self, seconds: float) -> bool:
        """Whether there is time for another attempt that begins so many seconds after this one did."""
        return self.time_left is None or seconds < self.time_left

    def _ends(self) -> list[tuple[float, AttemptError]]:
        ends: list[tuple[float, AttemptError]] = []
        if self.timeout is not None:
            ends.append(
                (self.timeout, AttemptTimeout(f"the attempt was stopped after {self.timeout:g} s, its timeout"))
            )
        if self.time_left is not None:
            ends.append((self.time_left, DeadlineExceeded("the run had not ended by its deadline")))
        return ends
