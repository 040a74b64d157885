"""`Worker`: begins and ends all that a worker does, hands on what it hears meanwhile, and drains when it is asked to stop."""

import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Literal

import anyio

from pgrun import events
from pgrun._agents_here import registered_agents
from pgrun.db import listener
from pgrun.db.connected import Connected
from pgrun.db.declared import write_declared
from pgrun.db.postgres import PostgresDb
from pgrun.db.records import Claimed
from pgrun.errors import DatabaseError, UsageError
from pgrun.run.stream import Stream
from pgrun.worker.attempt import Attempt
from pgrun.worker.claims import Claims
from pgrun.worker.expiry import Expiry
from pgrun.worker.heartbeat import Heartbeat
from pgrun.worker.left_calls import LEFT, LeftCalls
from pgrun.worker.maintenance import Maintenance
from pgrun.worker.progress import ProgressNotes
from pgrun.worker.recorder import Recorder
from pgrun.worker.registration import Registration
from pgrun.worker.retention import Retention
from pgrun.worker.schedules import CHANGED, Schedules
from pgrun.worker.slots import Slots
from pgrun.worker.streams import Streams

_log = logging.getLogger("pgrun.worker")


class Worker:
    """Executes the runs of some queues on the running event loop, from ``async with Worker(db):`` until the block ends.

    When the block ends normally it drains: it claims nothing more, gives back at once what only waits for a provider that goes
    on by itself, finishes the rest of what it holds for up to `grace` seconds, and gives back what is left then. That uses up no
    attempt. When it ends by an exception or cancellation it gives back at once.

    Args:
        db: Where the runs are.
        queues: The queues to claim from, in no order among each other. The collection may grow while the worker runs.
        concurrency: Most runs at once. None of them holds a database connection.
        grace: Seconds to finish what it holds when it stops.
        mode: How it shows in `worker_status`; an embedded worker steps back where a daemon serves, if `db.worker` is auto.

    Raises:
        UsageError: An argument cannot be.
    """

    def __init__(
        self,
        db: PostgresDb,
        *,
        queues: Collection[str] = ("default",),
        concurrency: int = 50,
        grace: float = 30.0,
        mode: Literal["daemon", "embedded"] = "daemon",
    ) -> None:
        if isinstance(queues, str) or not queues or not all(queues):
            raise UsageError(f'queues={queues!r}: give at least one name, as in queues=["default"]')
        if concurrency < 1:
            raise UsageError(f"concurrency={concurrency!r}: at least one run at a time")
        if not grace >= 0:
            raise UsageError(f"grace={grace!r}: seconds, 0 or more")
        self.db = db
        self.queues = queues
        self.concurrency = concurrency
        self.grace = grace
        self.mode = mode
        self.draining = False
        self._yields = mode == "embedded" and db.worker == "auto"
        self._slots: Slots | None = None
        self._streams: Streams | None = None
        self._registration: Registration | None = None
        self._leaving = False

    def __repr__(self) -> str:
        return f"<Worker {self.worker_id or '(not started)'} {self.mode}, {self.running}/{self.concurrency} runs>"

    @property
    def worker_id(self) -> str:
        """The id under which it is registered; another one after others have taken over. Empty until it starts."""
        return self._registration.worker_id if self._registration else ""

    @property
    def running(self) -> int:
        """How many runs it holds."""
        return len(self._slots) if self._slots else 0

    async def __aenter__(self) -> "Worker":
        self._connected: Connected = await self.db.connected()
        self._verbs = self._connected.verbs
        self._maintenance = Maintenance(self._verbs, self.db.settings)
        self._registration = own = Registration(
            self._verbs, self.queues, mode=self.mode, concurrency=self.concurrency, lease=self.db.settings.lease
        )
        self._claims = Claims(
            self._verbs, self.db.settings, own, self.queues, yields=self._yields, draining=lambda: self.draining
        )
        self._left_calls = LeftCalls(self._verbs, own)
        self._schedules = Schedules(self._verbs, self.db.settings)
        self._expiry = Expiry(self._verbs, self.db.settings)
        for agent in registered_agents().values() if self.mode == "daemon" else ():
            await agent.adeclare(self.db)
        await write_declared(self.db, all_of_them=self.mode == "daemon")
        async with AsyncExitStack() as stack:
            await self._register()
            stack.push_async_callback(self._say_goodbye)
            address = self._connected.runtime.address
            stack.callback(listener.subscribe(self.db.listen_address or address, address, self.db.schema, self))
            recorder = Recorder(self._verbs, lambda written: slots.leave(written))
            self._streams = streams = Streams(self._verbs, recorder)
            self._notes = ProgressNotes(self._verbs, self._connected.runtime.call_soon)
            # A group of its own around the others, because the last of them may still have an ending to write.
            recording = await stack.enter_async_context(anyio.create_task_group())
            recording.start_soon(recorder.write_endings, name="pgrun endings")
            recording.start_soon(streams.write_forever, name="pgrun streams")
            stack.callback(streams.close)
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            self._slots = slots = Slots(self.concurrency, self._tasks, recorder, streams, self._begin)
            stack.callback(self._leave, recorder)
            stack.push_async_exit(self._drain_unless_failed)
            self._start_services(slots)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return await self._stack.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            found: BaseException = group
            while isinstance(found, BaseExceptionGroup) and len(found.exceptions) == 1:
                found = found.exceptions[0]
            if found is error:
                return False  # the block's own exception goes on as it was raised
            raise

    async def drain(self) -> None:
        """Claims nothing more and waits until what it holds has ended, at most `grace` seconds.

        What only waits for a provider that goes on by itself is given back at once: another worker takes up the answer.
        """
        self.draining = True
        self._claims.wake()
        if self._slots:
            self._slots.let_go()
        with anyio.move_on_after(self.grace):
            while self._slots:
                await self._slots.some_left()
            if self._slots is not None and self._slots.left_calls:
                await self._left_calls.look()
        events.emit("drained", worker_id=self.worker_id, left=self.running)

    def on_wake(self, queue: str) -> None:
        """Called in the listener's thread."""
        if queue in self.queues and self._claims.wakes_for(queue):
            self._connected.runtime.call_soon(self._claims.wake, queue)

    def on_soon(self, queue: str) -> None:
        """Called in the listener's thread; only a look at everything tells when that will be."""
        if queue == CHANGED:
            self._connected.runtime.call_soon(self._schedules.wake)
            self._connected.runtime.call_soon(self._expiry.wake)
        elif queue in self.queues and self._claims.wakes_for():
            self._connected.runtime.call_soon(self._claims.wake)

    def on_done(self, run_ids: Sequence[str]) -> None:
        """Other workers' results are no concern of this one."""

    def on_cancel(self, run_id: str) -> None:
        """Called in the listener's thread."""
        call_soon = self._connected.runtime.call_soon
        if run_id == LEFT:
            call_soon(self._left_calls.wake)
        else:
            call_soon(self._cancel, [run_id])

    def on_watch(self, run_id: str) -> None:
        """Called in the listener's thread."""
        self._connected.runtime.call_soon(self._stream, [run_id])

    def on_state(self, listening: bool) -> None:
        """Called in the listener's thread; whatever was not heard before is looked for now."""
        call_soon = self._connected.runtime.call_soon
        self._claims.is_listening = listening
        call_soon(self._claims.wake)
        call_soon(self._schedules.set_listening, listening)
        call_soon(self._expiry.wake)
        call_soon(self._left_calls.wake)

    def _start_services(self, slots: Slots) -> None:
        start = self._tasks.start_soon
        start(self._claims.claim_forever, slots, name="pgrun claims")
        start(self._maintain_forever, name="pgrun maintenance")
        start(self._expiry.look_forever, name="pgrun expiry")
        start(self._notes.write_forever, name="pgrun progress")
        # Beside maintenance and not within: a rescue must not wait until something is pruned.
        start(Retention(self._verbs, self.db.settings).look_forever, name="pgrun retention")
        start(self._schedules.look_forever, name="pgrun schedules")
        start(self._left_calls.look_forever, name="pgrun left calls")

    def _begin(self, claimed: Claimed, stream: Stream | None, on_wait: Callable[[], None]) -> Attempt:
        submit, notes = self.db.submit, self._notes
        return Attempt(
            claimed, self.db.settings, self._verbs, submit=submit, stream=stream, on_wait=on_wait, notes=notes
        )

    def _cancel(self, run_ids: Collection[str]) -> None:
        if self._slots:
            self._slots.cancel(run_ids)

    def _stream(self, run_ids: Collection[str]) -> None:
        if self._streams:
            self._streams.want(run_ids)

    async def _maintain_forever(self) -> None:
        assert self._slots is not None
        while True:
            pause = await self._maintenance.look(self.worker_id)
            await self._maintenance.give_back_strays(self.worker_id, self._slots.keys, self._claims.claiming_for)
            await anyio.sleep(pause)

    async def _register(self) -> None:
        assert self._registration is not None
        await self._registration.begin()
        self._heartbeat = Heartbeat(
            self._connected,
            self.db.schema,
            self.db.settings,
            self.worker_id,
            draining=lambda: self.draining,
            on_cancels=self._cancel,
            on_streams=self._stream,
            on_dead=self._on_dead,
        )
        events.emit("registered", worker_id=self.worker_id)

    def _on_dead(self) -> None:
        """Others have taken over: stop everything, write nothing, and come back as a new worker."""
        if self._leaving:  # a last heartbeat met our own goodbye
            return
        _log.error("worker %s was cut off for longer than its lease; its runs belong to others", self.worker_id)
        events.emit("lease_lost", worker_id=self.worker_id)
        if self._slots:
            self._slots.abandon()
        self._tasks.start_soon(self._come_back)

    async def _come_back(self) -> None:
        self._heartbeat.stop()
        while True:
            try:
                await self._register()
                self._claims.wake()
                return
            except DatabaseError as error:
                _log.warning("not registered again yet: %s", error)
                await anyio.sleep(1)

    async def _drain_unless_failed(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and not self.draining:
            await self.drain()

    def _leave(self, recorder: Recorder) -> None:
        self._leaving = True
        recorder.lose_patience()
        if self._streams:
            self._streams.lose_patience()
        self._tasks.cancel_scope.cancel()

    async def _say_goodbye(self) -> None:
        self._heartbeat.stop()
        try:
            given_back = await self._verbs.stop_worker(self.worker_id)
        except DatabaseError as error:
            _log.warning("could not say goodbye, others take over when the lease has run out: %s", error)
        else:
            events.emit("stopped", worker_id=self.worker_id, given_back=len(given_back))
