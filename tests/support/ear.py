"""Hears what a database says on pgrun's channels."""

from types import TracebackType
from uuid import uuid4

import psycopg


class Ear:
    """A connection that LISTENs to the channels of one schema."""

    def __init__(self, dsn: str, schema: str = "pgrun") -> None:
        self._conn = psycopg.connect(dsn, autocommit=True)
        for channel in ("wake", "soon", "done", "cancel", "watch", "events", "mark"):
            self._conn.execute(f'listen "{schema}_{channel}"'.encode())
        self._prefix = f"{schema}_"

    def heard(self) -> list[tuple[str, str]]:
        """Pairs of channel, without the schema, and payload, of all commits since the last call, in their order.

        Notifications arrive in the order of commits, so one of our own marks the end and nothing has to be waited for.
        """
        mark = str(uuid4())
        self._conn.execute("select pg_notify(%s, %s)", [f"{self._prefix}mark", mark])
        heard: list[tuple[str, str]] = []
        for notification in self._conn.notifies(timeout=10):
            if notification.payload == mark:
                return heard
            heard.append((notification.channel.removeprefix(self._prefix), notification.payload))
        raise AssertionError("our own notification did not arrive")

    def __enter__(self) -> "Ear":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._conn.close()
