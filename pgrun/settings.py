"""Every number that can be tuned, in one place: meaning, unit, default, consequence.

Durations are float seconds. Defaults are for agent runs, which last seconds to hours; tests make them smaller.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one `PostgresDb` and of the workers that use it."""

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
