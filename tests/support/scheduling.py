"""Schedules as a person in psql sees and moves them."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from support.database import Conn
from support.rows import Row

Look = Callable[[], Awaitable[float]]
HOUR = timedelta(hours=1)


def row(conn: Conn, schedule: str = "note") -> Row:
    found = conn.execute("select * from pgrun.schedules where schedule = %s", [schedule]).fetchone()
    assert found
    return found


def ticks(conn: Conn, schedule: str = "note") -> list[datetime]:
    """Those for which there are runs."""
    query = "select (metadata ->> 'tick')::timestamptz as tick from pgrun.jobs where metadata ->> 'schedule' = %s order by tick"
    return [found["tick"] for found in conn.execute(query, [schedule]).fetchall()]


def set_next(conn: Conn, next_at: datetime, schedule: str = "note") -> None:
    """As if this tick had been the next for a long time."""
    query = "update pgrun.schedules set next_at = %s, changed_at = %s - interval '1 year' where schedule = %s"
    conn.execute(query, [next_at, next_at, schedule])
