"""The one connection of a process that LISTENs, and hands what it hears to any number of subscribers.

It lives on an event loop of its own in a background thread, so that it serves every loop of the process and no blocked
loop keeps it from listening. A notification is a hint, never data: after every (re)connect subscribers are told to look at
everything they wait for, and while the connection is down, or LISTEN does not work here at all, they poll.

While somebody reads streams there is a second one for them: other processes are spared their notifications, and however many
there are, no result waits behind them.
"""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol
from uuid import uuid4

import anyio
import psycopg

from pgrun import events
from pgrun._jitter import uniform
from pgrun.db._address import Address
from pgrun.db._background import background
from pgrun.db._connection import Connection, connection
from pgrun.db._shielding import to_its_end

_log = logging.getLogger("pgrun.db")

_PING_INTERVAL = 10.0  # seconds of silence after which the connection is tried; TCP keepalives usually notice earlier
_PING_DEADLINE = 5.0
_PROOF_DEADLINE = 1.0  # a notification that does not come within a second will not come
_TRY_AGAIN = 60.0  # seconds between self-tests where LISTEN did not work
_LONGEST_BACKOFF = 5.0

_lock = threading.Lock()
_listeners: dict[tuple[Address, Address, str, bool], "_Listener"] = {}


class Hearer(Protocol):
    """Who wants to hear. All methods are called in the listener's thread and must return at once."""

    def on_state(self, listening: bool) -> None:
        """True: from now on notifications arrive; look at everything once. False: poll."""


class Subscriber(Hearer, Protocol):
    """Who wants to hear of runs."""

    def on_wake(self, queue: str) -> None:
        """A queue has got work."""

    def on_soon(self, queue: str) -> None:
        """A queue has got work for a moment that is not far."""

    def on_done(self, run_ids: Sequence[str]) -> None:
        """These runs have ended."""

    def on_cancel(self, run_id: str) -> None:
        """Someone asked to cancel this run."""

    def on_watch(self, run_id: str) -> None:
        """Somebody begins to read the stream of this run, which is running."""


class StreamSubscriber(Hearer, Protocol):
    """Who reads streams."""

    def on_events(self, run_ids: Sequence[str]) -> None:
        """There are new events in the streams of these runs."""


_RUNS: dict[str, Callable[[Any, str], None]] = {
    "wake": lambda subscriber, payload: subscriber.on_wake(payload),
    "soon": lambda subscriber, payload: subscriber.on_soon(payload),
    "done": lambda subscriber, payload: subscriber.on_done(payload.split(",")),
    "cancel": lambda subscriber, payload: subscriber.on_cancel(payload),
    "watch": lambda subscriber, payload: subscriber.on_watch(payload),
}
_STREAMS: dict[str, Callable[[Any, str], None]] = {
    "events": lambda subscriber, payload: subscriber.on_events(payload.split(",")),
}


def subscribe(listen: Address, notify: Address, schema: str, subscriber: Subscriber) -> Callable[[], None]:
    """Joins the process's listener for this database and schema, connecting it if need be; call the result to leave.

    Args:
        listen: Where to LISTEN, the server itself.
        notify: Where everyone else sends notifications, perhaps through a pooler; used for the self-test.
        schema: The schema whose runs are listened for.
        subscriber: Whom to tell.
    """
    return _join((listen, notify, schema, False), subscriber)


def subscribe_to_streams(
    listen: Address, notify: Address, schema: str, subscriber: StreamSubscriber
) -> Callable[[], None]:
    """The same for readers of streams, who have a listener of their own."""
    return _join((listen, notify, schema, True), subscriber)


def _join(key: tuple[Address, Address, str, bool], subscriber: Hearer) -> Callable[[], None]:
    with _lock:
        listener = _listeners.get(key)
        if listener is None:
            listen, notify, schema, streams = key
            listener = _listeners[key] = _Listener(listen, notify, schema, _STREAMS if streams else _RUNS)
        listener.add(subscriber)

    def leave() -> None:
        with _lock:
            if listener.remove(subscriber) and _listeners.get(key) is listener:
                del _listeners[key]

    return leave


class _Listener:
    """LISTENs for one schema of one database, from its first subscriber to its last."""

    def __init__(
        self, listen: Address, notify: Address, schema: str, channels: dict[str, Callable[[Any, str], None]]
    ) -> None:
        self._listen = listen
        self._notify = notify
        self._probe_channel = f"{schema}_probe"
        self._handlers = {f"{schema}_{name}": handler for name, handler in channels.items()}
        self._subscribers: tuple[Hearer, ...] = ()
        self._state = threading.Lock()
        self._listening = False
        self._warned = False
        self._task = background.start(self._run)

    def add(self, subscriber: Hearer) -> None:
        with self._state:  # or it would miss a change of state between the two lines
            self._subscribers = (*self._subscribers, subscriber)
            if self._listening:
                subscriber.on_state(True)

    def remove(self, subscriber: Hearer) -> bool:
        """Removes a subscriber; without any left the connection is closed and True is returned."""
        with self._state:
            self._subscribers = tuple(other for other in self._subscribers if other is not subscriber)
            if self._subscribers:
                return False
        self._task.cancel()
        return True

    async def _run(self) -> None:
        backoff = 0.1
        while True:
            try:
                async with connection(self._listen, within=_PING_DEADLINE * 2) as conn:
                    if await self._hears_itself(conn):
                        backoff = 0.1
                        self._announce(listening=True)
                        await self._hear(conn)
                self._warn_once()
                pause = _TRY_AGAIN
            except (psycopg.Error, OSError) as error:
                _log.debug("the listener lost its connection: %s", error)
                pause = backoff * uniform(0.5, 1.5)
                backoff = min(backoff * 2, _LONGEST_BACKOFF)
            finally:
                self._announce(listening=False)
            await anyio.sleep(pause)

    async def _hears_itself(self, conn: Connection) -> bool:
        """Whether LISTEN works here. Behind a transaction pooler it succeeds and nothing ever arrives.

        The proof is sent on another connection, because a pooler may hand back what a connection sends to itself.
        """
        token = str(uuid4())
        await to_its_end(self._subscribe(conn, token), within=_PING_DEADLINE * 2)
        heard = False
        hearing = conn.notifies(timeout=_PROOF_DEADLINE)
        async for notification in hearing:
            self._dispatch(notification)
            if notification.payload == token:
                heard = True
                break
        await hearing.aclose()
        return heard

    async def _subscribe(self, conn: Connection, token: str) -> None:
        for channel in (self._probe_channel, *self._handlers):
            await conn.execute(f'listen "{channel}"')
        async with connection(self._notify) as other:
            await other.execute("select pg_notify(%s, %s)", [self._probe_channel, token])

    async def _hear(self, conn: Connection) -> NoReturn:
        """Hands on what arrives until the connection breaks, which raises."""
        while True:
            async for notification in conn.notifies(timeout=_PING_INTERVAL):
                self._dispatch(notification)
            # An empty query: the server answers, and does nothing.
            await to_its_end(conn.execute(""), within=_PING_DEADLINE)

    def _dispatch(self, notification: psycopg.Notify) -> None:
        if handler := self._handlers.get(notification.channel):
            for subscriber in self._subscribers:
                handler(subscriber, notification.payload)

    def _announce(self, *, listening: bool) -> None:
        with self._state:
            if self._listening == listening:
                return
            self._listening = listening
            events.emit("listening" if listening else "not_listening")
            for subscriber in self._subscribers:
                subscriber.on_state(listening)

    def _warn_once(self) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "LISTEN does not work through %s, probably a pooler in transaction mode: runs and results are found by "
                "polling. Give the address of the server itself as listen_url= to get them at once.",
                self._listen.shown,
            )


# In a forked child the thread that listens does not exist.
os.register_at_fork(after_in_child=_listeners.clear)
