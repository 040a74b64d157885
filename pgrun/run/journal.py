"""The journal of a run: what it has done and paid for, so that an attempt that takes over goes on where the last one stopped.

A step is recorded when it is done, and never changed. Steps are numbered in the order in which they are begun; whatever follows
from recorded answers is the same in every attempt, and so are the numbers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

Kind = Literal["model_call", "tool_call"]


@dataclass(frozen=True)
class Step:
    """One piece of a run that is done.

    Attributes:
        number: Its place, from 1.
        kind: What was called.
        name: The provider's name of the model, or the tool's.
        data: JSON data: what came of it, as whoever called it reads it again.
        duration: Seconds.
    """

    number: int
    kind: Kind
    name: str
    data: Any
    duration: float


@dataclass(frozen=True)
class CallUnderWay:
    """A call of the model that an earlier attempt had begun.

    Attributes:
        number: Of its step.
        response_id: Under which its provider goes on with it; None if it is only known that it was to be made.
    """

    number: int
    response_id: str | None


class Journal:
    """The journal of one attempt; this one forgets, for runs without a database.

    Args:
        recorded: The steps of earlier attempts, by number.
        call: The call of the model that an earlier attempt had begun.

    Attributes:
        keeps_calls: Whether another attempt finds what `note_call` is told.
        patience: Seconds for which this attempt waits for an answer that its provider has only queued.
        waits: Whether this attempt does nothing but wait for an answer that another can take up just as well.
        leaves_call: Whether the attempt has failed before it had an answer that can still be had.
    """

    keeps_calls = False
    patience = math.inf

    def __init__(self, recorded: Mapping[int, Step] = MappingProxyType({}), call: CallUnderWay | None = None) -> None:
        self.waits = False
        self.leaves_call = False
        self._recorded = recorded
        self._call = call
        self._last = 0

    def begin(self, count: int = 1) -> int:
        """Numbers the next step, or so many that are begun together; returns the first number."""
        first = self._last + 1
        self._last += count
        return first

    def find(self, number: int, kind: Kind) -> Any:
        """The data of a step that an earlier attempt has recorded, or None."""
        step = self._recorded.get(number)
        return step.data if step and step.kind == kind else None

    async def keep(self, step: Step) -> None:
        """Records a step; returns when that cannot be lost any more.

        Raises:
            LeaseLost: The run belongs to another attempt.
        """

    def under_way(self, number: int) -> CallUnderWay | None:
        """The call that an earlier attempt had begun as this step, or None."""
        return self._call if self._call and self._call.number == number else None

    async def note_call(self, number: int, response_id: str | None) -> None:
        """Notes that a step is a call of the model, and under which id its provider goes on with it; then that is not lost.

        Raises:
            LeaseLost: The run belongs to another attempt.
        """

    def wait(self, waits: bool) -> None:
        """Says whether the attempt waits, see `waits`."""
        self.waits = waits
