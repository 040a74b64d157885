"""Redriving: makes many runs due again that ended in error, batch by batch, after their cause has been seen to."""

from dataclasses import asdict, dataclass

from pgrun._durations import is_duration
from pgrun.db.verbs import Verbs
from pgrun.errors import UsageError

_BATCH = 100  # runs in one transaction, which holds the locks of their sessions: tens of milliseconds


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Which runs that ended in error.

    Raises:
        UsageError: A field cannot be; an empty text is no filter, it is a mistake.
    """

    queue: str | None = None
    """Only those of one queue; None: of all. So with the others."""
    name: str | None = None
    """Only those of one agent or task."""
    error_type: str | None = None
    """Only those with this error, as in `pgrun.failures`, for example ``"ConnectionError"``."""
    since: float | None = None
    """Only those that ended within so many seconds."""

    def __post_init__(self) -> None:
        for name in ("queue", "name", "error_type"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise UsageError(f"{name}={value!r}: a text, or None for all")
        if self.since is not None and not is_duration(self.since):
            raise UsageError(f"since={self.since!r}: seconds since a run ended, 0 or more, at most a century")


async def retry_failed(verbs: Verbs, which: Failed, *, limit: int | None = None) -> int:
    """Makes these runs due again, the oldest first, and returns how many they were; what fails meanwhile is left alone.

    Cancelled, it stops after the batch; what was made due stays so.

    Raises:
        UsageError: The limit cannot be.
    """
    if limit is not None and (not isinstance(limit, int) or limit < 0):
        raise UsageError(f"limit={limit!r}: how many runs at most, 0 or more")
    retried, until = 0, None
    while limit is None or retried < limit:
        batch = _BATCH if limit is None else min(_BATCH, limit - retried)
        found, until = await verbs.retry_failed(**asdict(which), until=until, batch=batch)
        retried += found
        if found == 0:
            break
    return retried
