"""A model at work: one answer in the making, event by event, in the foreground or in the background.

`response` and `chat` plan an answer; a `Work` goes through the plan at the pace of the answer and enters into the bill
what that costs. Who streams gets its steps as they come; who does not, its body when it has ended.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any

import anyio

from pgrun.testing.answers import Hang, Usage, Worked
from pgrun.testing.bell import Bell
from pgrun.testing.bill import Bill
from pgrun.testing.patience import Patience

Body = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One event on the way to an answer.

    Attributes:
        event: The event as it is streamed.
        size: Characters that the model has to write for it.
        body: The answer's object from here on, None if the event does not change it.
        final: Whether the stream ends with it.
    """

    event: Body
    size: int = 0
    body: Body | None = None
    final: bool = False


@dataclass(frozen=True)
class Plan:
    """All that an answer goes through.

    Attributes:
        body: The answer's object before the first step.
        opening: The steps that come at once; the model thinks after them.
        output: The steps that the model works for.
        usage: What the whole answer costs, None for one that costs nothing.
    """

    id: str
    body: Body
    opening: list[Step]
    output: list[Step]
    usage: Usage | None


class Work:
    """One answer in the making.

    Attributes:
        id: The response's id.
        body: The answer's object as it is now.
        steps: The steps made so far.
        ended: Nothing changes any more.
    """

    def __init__(self, plan: Plan, answer: Worked, patience: Patience, bill: Bill) -> None:
        self.id = plan.id
        self.body = plan.body
        self.steps: list[Step] = []
        self.ended = False
        self.answer = answer
        self._plan = plan
        self._patience = patience
        self._bill = bill
        self._bell = Bell()
        self._written = 0  # characters
        self._waiting = anyio.CancelScope()
        self._begun = not isinstance(answer, Hang)  # a model works on it; one that hangs has not begun

    @property
    def cut_after(self) -> int | None:
        """After how many steps the stream to the client is cut, None if it is not."""
        if self.answer.cut is None:
            return None
        last = len(self._plan.opening) + len(self._plan.output) - 1
        after = self.answer.cut.after_events
        return last if after is None else after if after <= last else None

    async def advance(self) -> Step | None:
        """Make the next step when it is due, and return it; None if there is none left."""
        if self.ended:
            return None
        step = self._next()
        if self._patience.takes_time(self.answer):
            with anyio.CancelScope() as self._waiting:
                await self._become_due(step)
            if self._has_been_stopped():
                return None
        if step.body is not None:
            self.body = step.body
        if step.final:
            self._end(self._plan.usage)
        self._written += step.size
        self.steps.append(step)
        self._bell.ring()
        return step

    async def make(self, count: int | None = None) -> None:
        """Advance until `count` steps have been made, or to the end."""
        while count is None or len(self.steps) < count:
            if await self.advance() is None:
                return

    async def follow(self, after: int = -1) -> AsyncGenerator[Step, None]:
        """The steps after number `after`, those made already and then each as somebody makes it, to the end."""
        at = after + 1
        while True:
            while at < len(self.steps):
                yield self.steps[at]
                at += 1
            if self.ended:
                return
            await self._bell.wait()

    async def work(self) -> AsyncGenerator[Step, None]:
        """Make all steps, and yield each."""
        while (step := await self.advance()) is not None:
            yield step

    def stop(self, body: Body) -> None:
        """End it here with this body; what has been produced is paid for. Nothing happens if it has ended."""
        if not self.ended:
            self.body = body
            self._end(self._so_far())
            self._waiting.cancel()
            self._bell.ring()

    def _has_been_stopped(self) -> bool:
        return self.ended

    def _next(self) -> Step:
        made, opening = len(self.steps), self._plan.opening
        return opening[made] if made < len(opening) else self._plan.output[made - len(opening)]

    async def _become_due(self, step: Step) -> None:
        if len(self.steps) == len(self._plan.opening):
            await self._patience.hold(self.answer)
            self._begun = True
        elif step.size and self._written:
            await self._patience.pause(self.answer)

    def _so_far(self) -> Usage | None:
        usage = self._plan.usage
        if usage is None or not self._begun:
            return None
        whole = sum(step.size for step in self._plan.output)
        # A model that has thought about it has produced something, even where nothing of that has been seen yet.
        tokens = max(1, usage.output_tokens * self._written // whole if whole else 0)
        return replace(usage, output_tokens=tokens, reasoning_tokens=min(usage.reasoning_tokens, tokens))

    def _end(self, usage: Usage | None) -> None:
        self.ended = True
        if usage is not None:
            self._bill.enter(self.id, usage)
