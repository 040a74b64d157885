"""Every number that can be tuned, in one place: meaning, unit, default, consequence.

Durations are float seconds. Defaults are for agent runs, which last seconds to hours; tests make them smaller.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pgrun._durations import is_duration
from pgrun.errors import UsageError

SHORTEST_RETENTION = 3600.0
"""Seconds. Whoever waits for a run, or repeats a statement about it after an outage, still finds it; and `queue_stats` counts
what ended within the last hour."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one `PostgresDb` and of the workers that use it.

    Raises:
        UsageError: The retention is too short, or no duration.
    """

    lease: float = 15.0
    """Seconds a worker keeps its runs without a sign of life. A killed worker's runs start elsewhere this much later; a
    worker cut off from the database for longer may lose its runs to another."""

    heartbeats_per_lease: int = 3
    """Heartbeats within one lease. More of them survive more lost ones and cost as many statements more."""

    poll_interval: float = 5.0
    """Seconds between looks of an idle worker or waiter while LISTEN works. Bounds what a lost notification costs."""

    poll_interval_without_listen: float = 0.5
    """The same while LISTEN does not work. Bounds how late results and runs are seen behind a transaction pooler."""

    statement_timeout: float = 30.0
    """Seconds the client waits for one statement before it gives the connection up."""

    reconnect_timeout: float = 30.0
    """Seconds a database that has answered before may be away before `DatabaseUnavailable` is raised. One that never has
    answered fails at once."""

    pool_size: int = 4
    """Most connections per event loop. Runs hold none while they execute, so a few serve hundreds of runs."""

    unknown_delay: float = 30.0
    """Seconds a run that no live worker can execute is put off before someone looks at it again."""

    quota_delay: float = 60.0
    """Seconds a run is put off when the provider says that the account is out of credit or the key is not accepted."""

    loop_blocked_after: float = 1.0
    """Seconds the event loop may be silent before the heartbeat thread reports it as blocked, with a stack."""

    retention: float | Mapping[str, float] | None = None
    """Seconds that runs are kept after their end, at least an hour; then workers delete them, a little every minute or so. Or of
    some statuses: ``{"completed": 7 * 86400, "error": 90 * 86400}`` keeps cancelled ones for ever.
    Among several workers the shortest retention counts. None, the default, keeps them for ever. Queues of jobs whose effect is
    elsewhere forget them within days; here the answer itself was paid for, its row may be its only copy, and deleting it
    cannot be undone. So it is with stores of workflows and conversations too: they delete by age only when they are told to."""

    event_retention: float | None = None
    """Seconds that the events of runs are kept after their end, at least an hour; then workers delete them, as they do with runs.
    Whoever reads such a run later gets what its row and its steps tell. None, the default, keeps them as long as the run."""

    @property
    def retentions(self) -> dict[str | None, float]:
        """The retention of each status that has one; under None that of all of them."""
        found: dict[str | None, float] = {}
        if isinstance(self.retention, Mapping):
            found.update(self.retention.items())
        elif self.retention is not None:
            found[None] = self.retention
        return found

    def __post_init__(self) -> None:
        statuses = {status for status in self.retentions if status is not None}
        if unknown := statuses - {"completed", "error", "cancelled"}:
            raise UsageError(f"retention of {', '.join(sorted(unknown))}: there are completed, error and cancelled")
        for status, kept in self.retentions.items():
            _check_retention(f"retention of {status}" if status else "retention", kept)
        if self.event_retention is not None:
            _check_retention("event_retention", self.event_retention)


def _check_retention(name: str, kept: object) -> None:
    if not is_duration(kept, least=SHORTEST_RETENTION):
        raise UsageError(
            f"{name}={kept!r}: seconds to keep ended runs, from {SHORTEST_RETENTION:g} (an hour) to a century, "
            "or None to keep them for ever"
        )
