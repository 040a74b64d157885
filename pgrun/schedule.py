"""When a schedule comes round: the rule by which a worker turns the present moment into ticks, those due and the next one.

A tick is a moment at which a schedule is to submit one run. Nothing here looks at a clock: the database's decides.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from pgrun.errors import UsageError

Missed = Literal["skip", "once", "all"]
"""What becomes of ticks that nobody could fire in time, because no worker lived.

====  ==================================================================================================================
skip  nothing; a tick counts as missed when it is a minute late, or when the next one has come
once  the last of them is fired, for all of them
all   each of them is fired, in order, the last hundred at most
====  ==================================================================================================================
"""

LATE = timedelta(seconds=60)
MOST_MISSED = 100

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHORTEST = timedelta(seconds=0.1)
_LONGEST = timedelta(days=36_600)
# From which moment before now to look for the last ticks: the nearest from which there are enough.
_WINDOWS = tuple(timedelta(hours=hours) for hours in (1, 6, 24, 24 * 8, 24 * 32, 24 * 366, 24 * 366 * 9))


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The ticks of a schedule: those of a cron expression, every so often, or one moment.

    Raises:
        UsageError: It cannot be; the message says what is wrong.
    """

    cron: str | None = None
    """Minute, hour, day of month, month, day of week, as Debian's cron reads them (names, ranges, steps, ``L``, ``MON#1``); with
    six fields the first is the second. Where clocks go forward, what has a fixed time in the hour that is left out comes right
    after it; where they go back, it comes once. What comes every hour or minute keeps to real time in both cases."""
    every: timedelta | None = None
    """At the multiples of this duration since 1970 in UTC, so ``every=300`` is at :00, :05 …, whoever declared it when."""
    at: datetime | None = None
    """Once."""
    timezone: str = "UTC"
    """Where the clock hangs that `cron` means: a name of the IANA database, such as Europe/Berlin."""

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.cron, self.every, self.at)) != 1:
            raise UsageError("a schedule has one of cron=, every= and at=")
        if self.every is not None and not _SHORTEST <= self.every <= _LONGEST:
            raise UsageError(f"every={self.every}: from a tenth of a second to a century")
        if self.at is not None and not (self.at.tzinfo and 1970 <= self.at.year < 9999):
            raise UsageError(f"at={self.at!r}: an aware datetime since 1970, for example datetime(…, tzinfo=UTC)")
        zone_of(self.timezone)
        if self.cron is not None and self.next_after(_EPOCH) is None:
            raise UsageError(f"cron={self.cron!r}: there is no such day")

    def next_after(self, moment: datetime) -> datetime | None:
        """The first tick that is later, in UTC; None if there is none."""
        return next(self._after(moment), None)

    def last_of(self, first: datetime, now: datetime, *, most: int) -> list[datetime]:
        """The ticks from `first`, which is one, up to now, in order; of more than `most` the last ones."""
        found: list[datetime] = []
        for window in _WINDOWS:
            begin = max(first, now - window)
            ticks = deque([first] if begin == first else [], maxlen=most)
            for tick in self._after(begin):
                if tick > now:
                    break
                ticks.append(tick)
            found = [*ticks]
            if len(found) == most or begin == first:
                break
        return found or [first]

    def _after(self, moment: datetime) -> Iterator[datetime]:
        if self.every is not None:
            number = (moment - _EPOCH) // self.every
            while True:
                number += 1
                yield _EPOCH + number * self.every
        elif self.at is not None:
            if self.at > moment:
                yield self.at.astimezone(UTC)
        else:
            assert self.cron is not None
            last = moment
            for local in _simulated(self.cron, moment.astimezone(zone_of(self.timezone))):
                # Of one hour that is left out several ticks may come at once; and one that is there twice may lie behind us.
                if (tick := local.astimezone(UTC)) > last:
                    yield tick
                    last = tick


def due(timing: Timing, missed: str, next_at: datetime, now: datetime) -> tuple[list[datetime], datetime | None]:
    """What a schedule does whose next tick has come: the ticks to fire, in order, and the one to wait for; None if there is none.

    Args:
        timing: When its ticks are.
        missed: One of `Missed`.
        next_at: The tick that has come.
        now: The present moment; not before it.
    """
    most = 1 if missed != "all" or timing.at else MOST_MISSED
    ticks = timing.last_of(next_at, now, most=most)
    if missed == "skip" and now - ticks[-1] > LATE:
        ticks = []
    return ticks, timing.next_after(now)


def check_missed(value: str) -> str:
    """Returns the value if it is a `Missed`, else raises `UsageError`."""
    if value not in get_args(Missed):
        raise UsageError(f"missed={value!r} is none of {', '.join(get_args(Missed))}")
    return value


@lru_cache(maxsize=256)
def zone_of(name: str) -> ZoneInfo:
    """The time zone of that name.

    Raises:
        UsageError: There is none.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):
        raise UsageError(
            f"timezone={name!r}: no such time zone; a name of the IANA database, such as Europe/Berlin"
        ) from None


def _simulated(cron: str, moment: datetime) -> Iterator[datetime]:
    try:
        # For UTC its own constant: there cronsim takes a shorter way.
        yield from CronSim(cron, moment.astimezone(UTC) if moment.tzinfo == ZoneInfo("UTC") else moment)
    except CronSimError as error:
        raise UsageError(f'cron={cron!r}: {_lower(str(error))}; five fields, as in "0 9 * * MON-FRI"') from None


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
