"""The slots of a worker: claimed runs on their way from the claim to the written outcome, and the tasks that execute them."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import anyio
from anyio.abc import TaskGroup

from pgrun import events
from pgrun.db.records import Claimed, Ending
from pgrun.worker.attempt import Attempt
from pgrun.worker.attempt_stream import AttemptStream
from pgrun.worker.decision import Decision, Leave
from pgrun.worker.recorder import Recorder
from pgrun.worker.streams import Streams

Begin = Callable[[Claimed, AttemptStream | None, Callable[[], None]], Attempt]
"""Takes the run, the stream that it tells, and what is to be called when it begins to wait for a provider."""

_BREATH = 50  # runs that one task executes before it lets others have the loop, should none of them ever wait


class Stop(Enum):
    """Why an attempt was stopped from outside."""

    CANCELLED = "cancelled"
    LEASE_LOST = "lease lost"
    LEAVING = "leaving"
    """Its provider goes on without us; another worker takes up the answer."""


@dataclass(eq=False, slots=True)
class _Held:
    """A run in one of the slots."""

    claimed: Claimed
    scope: anyio.CancelScope | None = None
    """Of the task that executes it, while it does."""
    attempt: Attempt | None = None
    why: Stop | None = None

    def stop(self, why: Stop) -> None:
        self.why = self.why or why
        if self.scope is not None:
            self.scope.cancel()


class Slots:
    """The runs that a worker holds, at most `size`. A run leaves its slot when its outcome is written.

    Runs are executed by as many tasks as have to wait for something, and one to spare, which takes the next run as soon as
    all others wait: a run that never waits costs no task of its own.

    Args:
        size: How many there are.
        tasks: Where runs are executed; cancelling it stops them, and whoever cancels it gives them back.
        recorder: Takes their outcomes.
        streams: Take what the runs of agents tell, and every ending behind it.
        begin: Makes the attempt at a run.

    Attributes:
        left_calls: Whether a run has ended here whose provider may still work on an answer.
    """

    def __init__(self, size: int, tasks: TaskGroup, recorder: Recorder, streams: Streams, begin: Begin) -> None:
        self.size = size
        self._tasks = tasks
        self._recorder = recorder
        self._streams = streams
        self._begin = begin
        # By run_id and fence: a run that is due again may be claimed again before its last attempt has left.
        self._held: dict[tuple[str, int], _Held] = {}
        self._ready: deque[_Held] = deque()
        self._has_spare = False
        self._is_leaving = False
        self.left_calls = False
        self._left = anyio.Event()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def free(self) -> int:
        """How many more runs can be taken."""
        return self.size - len(self._held)

    @property
    def keys(self) -> Collection[tuple[str, int]]:
        """The runs held, as pairs of run_id and fence, as they are whenever it is looked at."""
        return self._held.keys()

    def take(self, claimed: Sequence[Claimed]) -> None:
        """Puts runs into free slots; they start at the next turn of the loop."""
        for run in claimed:
            held = self._held[run.run_id, run.fence] = _Held(run)
            self._ready.append(held)
        self._have_a_spare()

    def leave(self, claimed: Iterable[Claimed]) -> None:
        """Frees the slots of runs."""
        for run in claimed:
            self._held.pop((run.run_id, run.fence), None)
        left, self._left = self._left, anyio.Event()
        left.set()

    async def some_left(self) -> None:
        """Waits until a slot is freed."""
        await self._left.wait()

    def cancel(self, run_ids: Collection[str]) -> None:
        """Stops runs that someone asked to cancel."""
        for held in self._held.values():
            if held.claimed.run_id in run_ids:
                events.emit("cancelling", run_id=held.claimed.run_id)
                held.stop(Stop.CANCELLED)

    def abandon(self) -> None:
        """Stops all runs, because they belong to others now."""
        for held in self._held.values():
            held.stop(Stop.LEASE_LOST)

    def let_go(self) -> None:
        """Gives back, now and from now on, the runs that only wait for a provider, which goes on without this worker."""
        self._is_leaving = True
        for held in self._held.values():
            self._let_go(held)

    def _let_go(self, held: _Held) -> None:
        if self._is_leaving and held.attempt is not None and held.attempt.waits:
            held.stop(Stop.LEAVING)

    def _have_a_spare(self) -> None:
        if self._ready and not self._has_spare:
            self._has_spare = True
            self._tasks.start_soon(self._execute_ready, name="pgrun runs")

    async def _execute_ready(self) -> None:
        self._has_spare = False
        executed = 0
        while self._ready:
            with anyio.CancelScope() as scope:  # until a run is stopped: one costs as much as a short run
                while self._ready and not scope.cancel_called:
                    held = self._ready.popleft()
                    self._have_a_spare()
                    await self._execute(held, scope)
                    executed += 1
                    if executed == _BREATH:
                        self._have_a_spare()  # which goes on at the next turn of the loop, and no other beside it
                        return

    async def _execute(self, held: _Held, scope: anyio.CancelScope) -> None:
        stream = self._streams.open(held.claimed) if held.claimed.kind == "agent" else None
        attempt = self._begin(held.claimed, stream, lambda: self._let_go(held))
        decision: Decision | None = None
        held.scope, held.attempt = scope, attempt
        try:
            if held.why is None:
                decision = await attempt.decide()
        finally:
            held.scope = held.attempt = None
            if decision is None:
                decision = self._stopped(held, attempt)
            if isinstance(decision, Ending):
                self.left_calls = self.left_calls or decision.keeps_call
                self._streams.finish(decision)
            elif decision is None:  # others see to the run
                self._streams.drop(held.claimed)
                self.leave([held.claimed])
            else:
                with anyio.CancelScope(shield=True):
                    await self._streams.settle(held.claimed)
                    await self._recorder.put_off(held.claimed, decision)
                self.leave([held.claimed])

    def _stopped(self, held: _Held, attempt: Attempt) -> Decision | None:
        """What follows for a run that was stopped from outside."""
        if held.why is Stop.CANCELLED:
            # An answer that came in the last moment is counted here, and not once more when it is stopped.
            keeps_call = not attempt.has_answer
            return Ending(held.claimed, "cancelled", attempt.metrics, tools=attempt.tools, keeps_call=keeps_call)
        if held.why is Stop.LEAVING:  # what it has used is in its row, or will be counted with the answer
            return Leave(0.0)
        return None
