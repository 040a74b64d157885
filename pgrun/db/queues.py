"""Queues as operators control them, live in the database: their limits, pauses, and what they hold at present."""

from collections.abc import Callable, Mapping
from functools import partial
from math import isfinite
from typing import Any, TypedDict, Unpack

from pgrun._durations import is_duration
from pgrun._sync import run_sync
from pgrun.db.connected import Connects
from pgrun.errors import UsageError

_INT = 2**31 - 1


class QueueLimits(TypedDict, total=False):
    """The limits of a queue, across all workers; None is no limit. What is left out stays as it is."""

    concurrency: int | None
    """At most so many of its runs run at once."""
    key_concurrency: int | None
    """At most so many runs of one `concurrency_key` run at once."""
    rate: float | None
    """So many start per `per` seconds in the long run; the weights of runs count."""
    per: float | None
    """Seconds. Default: 1."""
    burst: float | None
    """So many may start at one moment after a rest, so within any time there start at most `burst` and what `rate` says. Default:
    `rate`, at least 1. With 1 they start one by one, at equal intervals."""


class QueueControl(Connects):
    """What a `PostgresDb` can do with queues."""

    async def aset_queue(self, queue: str, **limits: Unpack[QueueLimits]) -> None:
        """Sets limits of a queue, which is declared by that; they hold for whatever starts from then on.

        What runs already goes on, even if it is more than may from then on. Nobody has to be restarted.

        Raises:
            UsageError: A limit does not exist or cannot be; nothing was changed.
        """
        _check_queue(queue)
        for name, value in limits.items():
            if name not in _CHECKS:
                raise UsageError(f"queues have no {name}=; there are {', '.join(_CHECKS)}")
            if value is not None:
                _CHECKS[name](name, value)
        await (await self._verbs()).set_queue(queue, limits)

    def set_queue(self, queue: str, **limits: Unpack[QueueLimits]) -> None:
        """The same as `aset_queue`, for code without an event loop."""
        run_sync(partial(self.aset_queue, queue, **limits))

    async def apause_queue(self, queue: str, *, resume_after: float | None = None) -> None:
        """Lets workers start nothing more from a queue until it is resumed, or `resume_after` seconds have passed.

        What runs goes on, and runs can be submitted. Paused again, it counts from now.
        """
        _check_queue(queue)
        if resume_after is not None and not is_duration(resume_after):
            raise UsageError(f"resume_after={resume_after!r}: seconds from now, 0 or more, at most a century")
        await (await self._verbs()).pause_queue(queue, resume_after)

    def pause_queue(self, queue: str, *, resume_after: float | None = None) -> None:
        """The same as `apause_queue`, for code without an event loop."""
        run_sync(partial(self.apause_queue, queue, resume_after=resume_after))

    async def aresume_queue(self, queue: str) -> None:
        """Ends a pause; workers look at once."""
        _check_queue(queue)
        await (await self._verbs()).resume_queue(queue)

    def resume_queue(self, queue: str) -> None:
        """The same as `aresume_queue`, for code without an event loop."""
        run_sync(partial(self.aresume_queue, queue))

    async def aqueues(self) -> dict[str, Mapping[str, Any]]:
        """What waits and runs in each queue, its limits and how far they are used: the columns of the view `queue_stats`."""
        rows = await (await self._verbs()).queue_stats()
        return {row["queue"]: row for row in rows}

    def queues(self) -> dict[str, Mapping[str, Any]]:
        """The same as `aqueues`, for code without an event loop."""
        return run_sync(self.aqueues)


def _check_queue(queue: object) -> None:
    if not isinstance(queue, str) or not queue or "\0" in queue:
        raise UsageError(f"queue={queue!r}: the name of a queue")


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _INT:
        raise UsageError(
            f"{name}={value!r}: a whole number, 1 or more, or None for no limit; to stop a queue, pause it"
        )


def _check_rate(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not (isfinite(value) and value > 0):
        raise UsageError(f"{name}={value!r}: how many runs start per `per` seconds, more than 0, or None for no limit")


def _check_per(name: str, value: object) -> None:
    if not is_duration(value, least=0.001):
        raise UsageError(f"{name}={value!r}: seconds, from 0.001 to a century")


def _check_burst(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not (isfinite(value) and value >= 1):
        raise UsageError(
            f"{name}={value!r}: how many runs may start at one moment, 1 or more, or None for as many as rate says"
        )


_CHECKS: dict[str, Callable[[str, object], None]] = {
    "concurrency": _check_count,
    "key_concurrency": _check_count,
    "rate": _check_rate,
    "per": _check_per,
    "burst": _check_burst,
}
