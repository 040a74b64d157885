"""A model at work: one answer in the making, event by event, in the foreground or in the background.

`responses` and `chat` plan an answer; a `Work` goes through the plan at the pace of the answer and enters into the bill
what that costs. Who streams gets its steps as they come; who does not, its body when it has ended.
"""

import time
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
        replayed: Whether the steps can be followed again later.
    """

    id: str
    body: Body
    opening: list[Step]
    output: list[Step]
    usage: Usage | None
    replayed: bool = False


class Work:
    """One answer in the making.

    Attributes:
        id: The response's id.
        body: The answer's object as it is now.
        made: How many steps have been made so far.
        ended: Nothing changes any more.
        answer: What was scripted.
        cut_after: After how many steps the stream to the client is cut, None if it is not.
        paid: What it has cost, once it has ended; None if nothing.
    """

    def __init__(self, plan: Plan, answer: Worked, patience: Patience, bill: Bill) -> None:
        self.id = plan.id
        self.body = plan.body
        self.made = 0
        self.ended = False
        self.paid: Usage | None = None
        self.answer = answer
        self.cut_after = _cut_after(plan, answer)
        self._plan: Plan | None = plan
        self._followed: list[Step] = []
        self._patience = patience
        self._bill = bill
        self._bell = Bell()
        self._begun = not isinstance(answer, Hang)  # a model works on it; one that hangs has not begun
        self._written = 0  # characters
        self._waiting: anyio.CancelScope | None = None

    async def advance(self) -> Step | None:
        """Make the next step when it is due, and return it; None if there is none left."""
        if self._plan is None:
            return None
        step = _step(self._plan, self.made)
        if self._patience.takes_time(self.answer):
            with anyio.CancelScope() as self._waiting:
                await self._become_due(step, self._plan)
            self._waiting = None
            if self.ended:  # stopped meanwhile
                return None
        self._enter(step, self._plan)
        return step

    async def make(self, count: int | None = None) -> None:
        """Advance until `count` steps have been made, or to the end."""
        while count is None or self.made < count:
            if await self.advance() is None:
                return

    async def work(self) -> AsyncGenerator[Step, None]:
        """Make all steps, and yield each."""
        while (step := await self.advance()) is not None:
            yield step

    async def follow(self, after: int = -1) -> AsyncGenerator[Step, None]:
        """The steps after number `after`, those made already and then each as somebody makes it, to the end."""
        at = max(0, after + 1)
        while True:
            while at < len(self._followed):
                yield self._followed[at]
                at += 1
            if self.ended:
                return
            await self._bell.wait()

    def stop(self, body: Body) -> None:
        """End it here with this body; what has been produced is paid for. Nothing happens if it has ended."""
        if self._plan is not None:
            self.body = body
            self._end(self._so_far(self._plan))
            if self._waiting is not None:
                self._waiting.cancel()
            self._bell.ring()

    async def _become_due(self, step: Step, plan: Plan) -> None:
        waits_at = len(plan.opening) - (isinstance(self.answer, Hang) and self.answer.queued)
        if self.made == waits_at:
            await self._patience.hold(self.answer)
            self._begun = True
        elif step.size and self._written:
            await self._patience.pause(self.answer)

    def _enter(self, step: Step, plan: Plan) -> None:
        if step.body is not None:
            self.body = step.body
        if step.final:
            if self.body.get("completed_at"):  # planned when the work began
                self.body["completed_at"] = int(time.time())
            self._end(plan.usage)
        self.made += 1
        self._written += step.size
        if plan.replayed:
            self._followed.append(step)
        self._bell.ring()

    def _so_far(self, plan: Plan) -> Usage | None:
        if plan.usage is None or not self._begun:
            return None
        whole = sum(step.size for step in plan.output)
        # A model that has thought about it has produced something, even where nothing of that has been seen yet.
        tokens = max(1, plan.usage.output_tokens * self._written // whole if whole else 0)
        return replace(plan.usage, output_tokens=tokens, reasoning_tokens=min(plan.usage.reasoning_tokens, tokens))

    def _end(self, usage: Usage | None) -> None:
        self.ended = True
        self._plan = None  # tests with many calls would keep all their steps
        self.paid = usage
        if usage is not None:
            self._bill.enter(self.id, usage)


def _step(plan: Plan, number: int) -> Step:
    made = len(plan.opening)
    return plan.opening[number] if number < made else plan.output[number - made]


def _cut_after(plan: Plan, answer: Worked) -> int | None:
    if answer.cut is None:
        return None
    last = len(plan.opening) + len(plan.output) - 1
    after = answer.cut.after_events
    return last if after is None else after if after <= last else None
