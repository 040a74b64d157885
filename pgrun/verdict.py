"""What a task can raise to say what is to follow from its attempt: `Retry`, `Snooze`, `Discard`."""

from typing import Any

from pgrun._durations import is_duration
from pgrun.errors import PgrunError, UsageError


class Verdict(PgrunError):
    """Raised by a task, or by its middleware, to say what is to follow from this attempt; base of those that say it."""


class Retry(Verdict):
    """Has the attempt repeated. It counts, so after the last one the run has failed.

    Args:
        reason: For people.
        after: Seconds until the next attempt. Default: as the retry policy says.
    """

    def __init__(self, reason: str = "", *, after: float | None = None) -> None:
        super().__init__(reason or "it asked for another attempt")
        self.after = None if after is None else _seconds("after", after)


class Snooze(Verdict):
    """Lets the run go on later, from the beginning, without using an attempt and without a slot meanwhile.

    Args:
        seconds: Until then.
        reason: For people, who find it in the run's row.
    """

    def __init__(self, seconds: float, reason: str = "") -> None:
        super().__init__(reason or "it wants to go on later")
        self.seconds = _seconds("seconds", seconds)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.seconds, str(self))


class Discard(Verdict):
    """Ends the run at once, whatever attempts are left.

    Args:
        reason: For people, and for who waits.
        cancel: It ends in `cancelled` and not in `error`: nothing went wrong, it only is not needed any more.
    """

    def __init__(self, reason: str = "", *, cancel: bool = False) -> None:
        super().__init__(reason or "it was discarded")
        self.cancel = cancel


def _seconds(name: str, value: float) -> float:
    if not isinstance(value, int | float) or not is_duration(value):
        raise UsageError(f"{name}={value!r}: seconds from now, 0 or more, at most a century")
    return value
