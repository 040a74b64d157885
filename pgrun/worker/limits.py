"""How long an attempt may take: its time-out."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio

from pgrun.errors import AttemptTimeout

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Those of one attempt.

    Attributes:
        timeout: Seconds.
    """

    timeout: float

    @classmethod
    def of(cls, declared: float | None) -> "Limits | None":
        """The limits of a run whose task was declared with a time-out; None if there are none, as mostly."""
        return None if declared is None else cls(declared)

    async def hold(self, work: Callable[[], Awaitable[T]]) -> T:
        """What the work returns; it is cancelled when it takes too long.

        Raises:
            AttemptTimeout: It took longer than the time-out.
        """
        with anyio.move_on_after(self.timeout):
            return await work()
        raise AttemptTimeout(f"the attempt was stopped after {self.timeout:g} s, its timeout")
