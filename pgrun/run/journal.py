"""The journal of a run: what it has done and paid for, so that an attempt that takes over goes on where the last one stopped.

A step is recorded when it is done, and never changed. Steps are numbered in the order in which they are begun; whatever follows
from recorded answers is the same in every attempt, and so are the numbers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pgrun.run.requirement import RunRequirement
from pgrun.run.state import Change, State, changed

Kind = Literal["model_call", "tool_call", "message", "state", "hook"]


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
        requirements: What the run has waited for a person for.
        begun: Steps that have begun and may have happened, by number: how often.
        call: The call of the model that an earlier attempt had begun.

    Attributes:
        keeps_calls: Whether another attempt finds what `note_call` is told.
        patience: Seconds for which this attempt waits for an answer that its provider has only queued.
        waits: Whether this attempt does nothing but wait for an answer that another can take up just as well.
        said: What has been said to the run while it was open, as far as that is known; the journal says where it was heard.
        heard: How much of it was heard.
        state: Of the session, as far as it is known.
        leaves_call: Whether the attempt has failed before it had an answer that can still be had.
        has_answer: Whether the last call of the model has been answered, and what that has used is counted in this attempt.
    """

    keeps_calls = False
    patience = math.inf

    def __init__(
        self,
        recorded: Mapping[int, Step] = MappingProxyType({}),
        requirements: Sequence[RunRequirement] = (),
        begun: Mapping[int, int] = MappingProxyType({}),
        call: CallUnderWay | None = None,
    ) -> None:
        self.requirements = requirements
        self.waits = False
        self.said: list[str] = []
        self.heard = 0
        self.state: State = {}
        self.leaves_call = False
        self.has_answer = False
        self._recorded = recorded
        self._begun = begun
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

    @property
    def has_news(self) -> bool:
        """Whether there is something to `hear`.

        What is new since the last attempt has to wait until all of that is repeated, and the call taken up that was under way.
        """
        if step := self._recorded.get(self._last + 1):
            return step.kind == "message"
        return len(self.said) > self.heard and self.under_way(self._last + 1) is None

    async def hear(self) -> Sequence[str]:
        """What has been said to the run since; recorded first, so that every attempt hears it at this place."""
        if not self.has_news:
            return ()
        number = self.begin()
        texts: list[str] | None = self.find(number, "message")
        if texts is None:
            texts = self.said[self.heard :]
            await self.keep(Step(number, "message", "steer", texts, 0.0))
        self.heard += len(texts)
        return texts

    async def begin_state(self, changes: Sequence[Change]) -> None:
        """Makes the changes with which a run begins, once: an attempt that takes over finds that they were made."""
        step = self._recorded.get(self._last + 1)
        if step is not None and step.kind == "state":
            self.begin()
        elif step is None and changes and self.under_way(self._last + 1) is None:
            await self.change(Step(self.begin(), "state", "session_state", changes, 0.0), changes)

    async def change(self, step: Step, changes: Sequence[Change]) -> None:
        """Records a step together with what it changes in the state of the session: both or neither; else as `keep`."""
        await self.keep(step)
        self.state = changed(self.state, changes)

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
