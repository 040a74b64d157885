"""`Worker`: claims runs into free slots, sees each attempt through to its record, and drains when it is asked to stop."""

import logging
import os
import socket
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from importlib.metadata import version
from types import TracebackType
from typing import Literal
from uuid import uuid4

import anyio

from pgrun import events
from pgrun._agents_here import registered_agents
from pgrun._jitter import uniform
from pgrun.db import listener
from pgrun.db.connected import Connected
from pgrun.db.declared import write_declared
from pgrun.db.postgres import PostgresDb
from pgrun.db.records import Claimed, Look, WorkerCard
from pgrun.errors import DatabaseError, UsageError
from pgrun.run.stream import Stream
from pgrun.task import registered_tasks
from pgrun.worker.attempt import Attempt
from pgrun.worker.cursor import Cursor
from pgrun.worker.expiry import Expiry
from pgrun.worker.heartbeat import Heartbeat
from pgrun.worker.left_calls import LEFT, LeftCalls
from pgrun.worker.limited import OTHERS_EVERY, Limited, Turn
from pgrun.worker.maintenance import Maintenance
from pgrun.worker.pace import Pace
from pgrun.worker.progress import ProgressNotes
from pgrun.worker.recorder import Recorder
from pgrun.worker.retention import Retention
from pgrun.worker.schedules import CHANGED, Schedules
from pgrun.worker.slots import Slots
from pgrun.worker.streams import Streams

_log = logging.getLogger("pgrun.worker")

_MOST_AT_ONCE = 1000  # runs per claim
_GATHER = 0.001  # seconds
_EVERYTHING = ""  # for which a worker is woken; no queue has this name
_HORIZON = 10.0  # seconds; runs that fall due within it are waited for to the millisecond


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
        self.worker_id = ""
        self.draining = False
        self._yields = mode == "embedded" and db.worker == "auto"
        self._slots: Slots | None = None
        self._streams: Streams | None = None
        self._cursor = Cursor()
        self._registered: tuple[str, ...] = ()
        self._known: list[str] = []
        self._listening = False
        self._leaving = False
        self._claiming_since: float | None = None

    def __repr__(self) -> str:
        return f"<Worker {self.worker_id or '(not started)'} {self.mode}, {self.running}/{self.concurrency} runs>"

    @property
    def running(self) -> int:
        """How many runs it holds."""
        return len(self._slots) if self._slots else 0

    async def __aenter__(self) -> "Worker":
        self._connected: Connected = await self.db.connected()
        self._verbs = self._connected.verbs
        self._maintenance = Maintenance(self._verbs, self.db.settings)
        self._left_calls = LeftCalls(self._verbs)
        self._limited = Limited(self._verbs, yields=self._yields)
        self._schedules = Schedules(self._verbs, self.db.settings)
        self._expiry = Expiry(self._verbs, self.db.settings)
        self._woken = anyio.Event()
        self._woken_for: set[str] = set()
        self._look_at = 0.0
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
            self._tasks.start_soon(self._claim_forever, name="pgrun claims")
            self._tasks.start_soon(self._maintain_forever, name="pgrun maintenance")
            self._tasks.start_soon(self._expiry.look_forever, name="pgrun expiry")
            self._tasks.start_soon(self._notes.write_forever, name="pgrun progress")
            # Beside maintenance and not within: a rescue must not wait until something is pruned.
            self._tasks.start_soon(Retention(self._verbs, self.db.settings).look_forever, name="pgrun retention")
            self._tasks.start_soon(self._schedules.look_forever, name="pgrun schedules")
            self._tasks.start_soon(
                self._left_calls.look_forever, lambda: (self._registered, self._known), name="pgrun left calls"
            )
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
        self._woken.set()
        if self._slots:
            self._slots.let_go()
        with anyio.move_on_after(self.grace):
            while self._slots:
                await self._slots.some_left()
            if self._slots is not None and self._slots.left_calls:
                await self._left_calls.look(self._registered, self._known)
        events.emit("drained", worker_id=self.worker_id, left=self.running)

    def on_wake(self, queue: str) -> None:
        """Called in the listener's thread."""
        if queue in self.queues and queue not in self._woken_for:
            self._connected.runtime.call_soon(self._wake, queue)

    def on_soon(self, queue: str) -> None:
        """Called in the listener's thread; only a look at everything tells when that will be."""
        if queue == CHANGED:
            self._connected.runtime.call_soon(self._schedules.wake)
            self._connected.runtime.call_soon(self._expiry.wake)
        elif queue in self.queues and _EVERYTHING not in self._woken_for:
            self._connected.runtime.call_soon(self._wake)

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
        self._listening = listening
        self._connected.runtime.call_soon(self._wake)
        self._connected.runtime.call_soon(self._schedules.set_listening, listening)
        self._connected.runtime.call_soon(self._expiry.wake)

    def _wake(self, queue: str = _EVERYTHING) -> None:
        self._woken_for.add(queue)
        self._woken.set()

    async def _claim_forever(self) -> None:
        assert self._slots is not None
        pace = Pace(self._promise_looks, may_promise=not self._yields)
        there_is_more = False
        while not self.draining:
            free = min(self._slots.free, _MOST_AT_ONCE)
            if free == 0:
                await pace.wait_for_slot(self._slots.some_left)
                continue
            if there_is_more and free < self.concurrency // 4:
                await anyio.sleep(_GATHER)  # slots are freed in batches: one statement for many
                free = min(self._slots.free, _MOST_AT_ONCE)
            # Whatever wakes us from here on is not seen by this claim for certain.
            woken_for, self._woken_for = self._woken_for, set()
            self._woken = anyio.Event()
            self._claiming_since = time.monotonic()
            if len(woken_for) == 1 and not (there_is_more or pace.is_awake):
                claimed, pause = await self._claim_woken(woken_for.pop(), free)
            else:
                claimed, pause = await self._claim(free)
            self._slots.take(claimed)
            self._claiming_since = None
            there_is_more = len(claimed) == free
            if not there_is_more:
                await pace.rest(len(claimed), pause, self._woken)
        await pace.sleep(hands_over=True)

    async def _promise_looks(self, seconds: float, hands_over: bool) -> None:
        try:
            await self._verbs.promise_looks(self.worker_id, seconds, hands_over=hands_over)
        except DatabaseError as error:
            _log.warning("whether it has to be woken is not written: %s", error)

    async def _claim_woken(self, queue: str, free: int) -> tuple[list[Claimed], float]:
        """The same as `_claim`, after a notification for one queue, when something due is likely to be there."""
        is_known = names_here() == self._known and tuple(self.queues) == self._registered
        if queue == _EVERYTHING or self._yields or self._cursor.positions or not is_known:
            return await self._claim(free)
        if queue in self._limited:
            claimed, next_due, _ = await self._limited.claim_from(queue, self.worker_id, self._known, free)
            if next_due is not None:
                self._look_at = min(self._look_at, time.monotonic() + next_due)
        else:
            try:
                claimed = await self._verbs.claim_woken(self.worker_id, queue, self._known, free)
            except DatabaseError as error:
                _log.warning("no claim: %s", error)
                return [], 1.0
            if not claimed:  # somebody else was faster, or it is not simple
                return await self._claim(free)
        _tell(claimed)
        return claimed, max(self._look_at - time.monotonic(), 0.0)

    async def _claim(self, free: int) -> tuple[list[Claimed], float]:
        """The runs claimed, and for how many seconds it makes sense to sleep when there are fewer than slots."""
        settings = self.db.settings
        interval = settings.poll_interval if self._listening else settings.poll_interval_without_listen
        pause = interval * uniform(0.9, 1.1)
        claimed: list[Claimed] = []
        turn, looks = self._limited.begin_round(self.queues), [self._claim_unlimited, self._claim_limited]
        if turn is Turn.ALONE:
            looks, pause = [self._claim_limited], min(pause, OTHERS_EVERY)
        elif turn is Turn.FIRST:
            looks = [self._claim_limited, *looks]
        for look in looks:
            if len(claimed) < free:
                found, next_due, _ = await look(free - len(claimed))
                claimed += found
                pause = pause if next_due is None else min(pause, max(next_due, 0.0))
        _tell(claimed)
        self._look_at = time.monotonic() + pause
        return claimed, pause

    async def _claim_limited(self, free: int) -> Look:
        return await self._limited.claim(self.worker_id, self._known, free)

    async def _claim_unlimited(self, free: int) -> Look:
        try:
            names = names_here()
            if tuple(self.queues) != self._registered or names != self._known:
                await self._register_queues()
            positions = self._cursor.positions
            began = time.monotonic()
            look = await self._verbs.claim(
                self.worker_id,
                self._registered,
                names,
                free,
                yields=self._yields,
                horizon=_HORIZON,
                positions=positions,
            )
            took = time.monotonic() - began
            self._cursor.looked(look.claimed, took, from_first=not positions, filled=len(look.claimed) == free)
        except DatabaseError as error:
            _log.warning("no claim: %s", error)
            return Look([], 1.0)
        self._limited.note(look.apart)
        if positions and not look.claimed:
            return await self._claim_unlimited(free)  # from the first run, which is where it begins now
        return look

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
            claiming_for = 0.0 if self._claiming_since is None else time.monotonic() - self._claiming_since
            await self._maintenance.give_back_strays(self.worker_id, self._slots.keys, claiming_for)
            await anyio.sleep(pause)

    async def _register(self) -> None:
        self.worker_id = str(uuid4())
        await self._register_queues()
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

    async def _register_queues(self) -> None:
        queues, names = tuple(self.queues), names_here()
        card = WorkerCard(
            worker_id=self.worker_id,
            mode=self.mode,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=version("pgrun"),
            concurrency=self.concurrency,
            lease=self.db.settings.lease,
        )
        await self._verbs.register_worker(card, queues, names)
        self._registered, self._known = queues, names

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
                self._wake()
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


def _tell(claimed: Sequence[Claimed]) -> None:
    for run in claimed:
        events.emit("claimed", run_id=run.run_id, name=run.name, attempt=run.attempt, fence=run.fence)


def names_here() -> list[str]:
    """What this process can execute although it does not travel with the run: tasks, and agents with tools."""
    agents = (name for name, agent in registered_agents().items() if not agent.definition.travels)
    return [*agents, *registered_tasks()]
