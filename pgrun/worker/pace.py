"""When a worker looks for runs: when it is woken, or, while there are so many that waking it would cost more, by itself."""

import time
from collections import deque
from collections.abc import Awaitable, Callable

import anyio

_LOOK = 0.003  # seconds between the looks of a worker that is awake
_WITHIN = 0.1  # seconds for which what was found is remembered
_MANY = 100  # so many runs found in them wake a worker: more than one client can submit that waits for each result ...
_FEW = 40  # ... and fewer than so many let it go to sleep
_PROMISE = 1.0  # seconds for which it says that it will be awake; renewed at half time
_FULL = 0.02  # seconds without a free slot after which it leaves the looking to others
_CATCH_UP = 0.005  # seconds to the first look after it went to sleep; then twice as many, and so on

Promise = Callable[[float, bool], Awaitable[None]]


class Pace:
    """Decides how long one worker rests after a look that did not fill its slots.

    A sleeping worker is woken by a notification for every statement that submits. When that happens all the time, it says that
    it is awake and looks every few milliseconds, and nobody notifies any more. Whoever submitted while it was awake, but
    commits after it went to sleep, is found by further looks at doubling intervals.

    Args:
        promise: Writes for how many seconds it will look by itself, and whether it leaves what is there to other workers.
        may_promise: Whether others can rely on it: not on a worker that steps back as soon as there is a daemon.
    """

    def __init__(self, promise: Promise, *, may_promise: bool = True) -> None:
        self._promise = promise
        self._may_promise = may_promise
        self._promised_until = 0.0
        self._finds: deque[tuple[float, int]] = deque()
        self._found_lately = 0
        self._catch_up = float("inf")

    @property
    def is_awake(self) -> bool:
        """Whether others rely on its looking."""
        return self._promised_until > 0

    async def rest(self, found: int, longest: float, woken: anyio.Event) -> None:
        """Returns when it is time to look again, after a look that found so many runs.

        Args:
            found: How many runs it was.
            longest: Seconds after which to look in any case.
            woken: Somebody says that there is something.
        """
        now = time.monotonic()
        self._note(now, found)
        if self._may_promise and self._found_lately >= (_FEW if self.is_awake else _MANY):
            await self._stay_awake(now)
            await anyio.sleep(min(_LOOK, longest))
            return
        if self.is_awake:
            await self.sleep()
        pause = min(self._catch_up, longest)
        self._catch_up *= 2
        with anyio.move_on_after(pause):
            await woken.wait()

    async def wait_for_slot(self, left: Callable[[], Awaitable[None]]) -> None:
        """Waits until a slot is freed; if that takes longer, others are told to look.

        Args:
            left: Waits for that.
        """
        with anyio.move_on_after(_FULL if self.is_awake else None) as scope:
            await left()
        if scope.cancelled_caught:
            await self.sleep(hands_over=True)

    async def sleep(self, *, hands_over: bool = False) -> None:
        """Ends the promise, if there is one."""
        if self.is_awake:
            self._promised_until = 0.0
            self._note(float("inf"), 0)  # else a look that finds nothing would wake it, after it has handed over
            self._catch_up = _CATCH_UP
            await self._promise(0.0, hands_over)

    def _note(self, now: float, found: int) -> None:
        while self._finds and now - self._finds[0][0] > _WITHIN:
            self._found_lately -= self._finds.popleft()[1]
        if found:
            self._finds.append((now, found))
            self._found_lately += found

    async def _stay_awake(self, now: float) -> None:
        if self._promised_until - now < _PROMISE / 2:
            await self._promise(_PROMISE, False)
            self._promised_until = now + _PROMISE
