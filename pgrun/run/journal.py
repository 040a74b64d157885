"""The journal of a run: what it has done and paid for, so that an attempt that takes over goes on where the last one stopped.

A step is recorded when it is done, and never changed. Steps are numbered in the order in which they are begun; whatever follows
from recorded answers is the same in every attempt, and so are the numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

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


class Journal:
    """The journal of one attempt; this one forgets, for runs without a database.

    Args:
        recorded: The steps of earlier attempts, by number.

    Attributes:
        said: What has been said to the run while it was open, as far as that is known; the journal says where it was heard.
        heard: How much of it was heard.
        state: Of the session, as far as it is known.
    """

    def __init__(self, recorded: Mapping[int, Step] = MappingProxyType({})) -> None:
        self.said: list[str] = []
        self.heard = 0
        self.state: State = {}
        self._recorded = recorded
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

    @property
    def has_news(self) -> bool:
        """Whether there is something to `hear`. What is new since the last attempt has to wait until all of that is repeated."""
        step = self._recorded.get(self._last + 1)
        return step.kind == "message" if step else len(self.said) > self.heard

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
        elif step is None and changes:
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
