"""The journal of a run: what it has done and paid for, so that an attempt that takes over goes on where the last one stopped.

A step is recorded when it is done, and never changed. Steps are numbered in the order in which they are begun; whatever follows
from recorded answers is the same in every attempt, and so are the numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pgrun.run.requirement import RunRequirement

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


class Journal:
    """The journal of one attempt; this one forgets, for runs without a database.

    Args:
        recorded: The steps of earlier attempts, by number.
        requirements: What the run has waited for a person for.
        begun: Steps that have begun and may have happened, by number: how often.
    """

    def __init__(
        self,
        recorded: Mapping[int, Step] = MappingProxyType({}),
        requirements: Sequence[RunRequirement] = (),
        begun: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        self.requirements = requirements
        self._recorded = recorded
        self._begun = begun
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

    def begun(self, number: int) -> int:
        """How often a step has begun in earlier attempts whose end nobody knows."""
        return self._begun.get(number, 0)

    def asked(self, number: int) -> Sequence[RunRequirement]:
        """What a step has waited for until now, the latest last."""
        return [each for each in self.requirements if each.step == number]

    async def start(self, number: int, name: str) -> None:
        """Notes that a call begins whose repeat would do harm; returns when that cannot be lost any more.

        Raises:
            LeaseLost: The run belongs to another attempt.
        """

    async def keep(self, step: Step) -> None:
        """Records a step; returns when that cannot be lost any more.

        Raises:
            LeaseLost: The run belongs to another attempt.
        """
