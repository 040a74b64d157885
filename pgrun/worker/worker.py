"""`Worker`: claims runs into free slots, sees each attempt through to its record, and drains when it is asked to stop."""

import logging
import os
import random
import socket
import time
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import version
from types import TracebackType
from typing import Literal
from uuid import uuid4

import anyio

from pgrun import events
from pgrun.agent import registered_agents
from pgrun.db import listener
from pgrun.db.postgres import Connected, PostgresDb
from pgrun.db.verbs import Claimed, Ending, WorkerCard
from pgrun.errors import DatabaseError, UsageError
from pgrun.worker.attempt import Attempt, Decision, Release, Retry, unforeseen
from pgrun.worker.flusher import Flusher
from pgrun.worker.heartbeat import Heartbeat
from pgrun.worker.maintenance import Maintenance
from pgrun.worker.retention import Retention

_log = logging.getLogger("pgrun.worker")

_HORIZON = 10.0  # seconds; runs that fall due within it are waited for to the millisecond


class _Stop(Enum):
    """Why an attempt was stopped from outside."""

    CANCELLED = "cancelled"
    LEASE_LOST = "lease lost"


@dataclass(eq=False)
class _Held:
    """A run in one of the slots."""

    claimed: Claimed
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    why: _Stop | None = None

    @property
    def key(self) -> tuple[str, int]:
        return self.claimed.run_id, self.claimed.fence

    def stop(self, why: _Stop) -> None:
        self.why = self.why or why
        self.scope.cancel()


class Worker:
    """Executes the runs of some queues on the running event loop, from ``async with Worker(db):`` until the block ends.

    When the block ends normally it drains: it claims nothing more, finishes what it holds for up to `grace` seconds, and
    gives the rest back without using up an attempt. When it ends by an exception or cancellation it gives back at once.

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
        # By run_id and fence: a run that is due again may be claimed again before its last attempt has left.
        self._held: dict[tuple[str, int], _Held] = {}
        self._registered: tuple[str, ...] = ()
        self._listening = False
        self._leaving = False
        self._claiming_since: float | None = None

    def __repr__(self) -> str:
        return f"<Worker {self.worker_id or '(not started)'} {self.mode}, {len(self._held)}/{self.concurrency} runs>"

    @property
    def running(self) -> int:
        """How many runs it holds."""
        return len(self._held)

    async def __aenter__(self) -> "Worker":
        self._connected: Connected = await self.db.connected()
        self._verbs = self._connected.verbs
        self._flusher = Flusher(self._verbs)
        self._maintenance = Maintenance(self._verbs, self.db.settings)
        self._woken, self._slot_freed = anyio.Event(), anyio.Event()
        for agent in registered_agents().values() if self.mode == "daemon" else ():
            await agent.adeclare(self.db)
        async with AsyncExitStack() as stack:
            await self._register()
            stack.push_async_callback(self._say_goodbye)
            address = self._connected.runtime.address
            stack.callback(listener.subscribe(self.db.listen_address or address, address, self.db.schema, self))
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(self._leave)
            stack.push_async_exit(self._drain_unless_failed)
            self._tasks.start_soon(self._claim_forever, name="pgrun claims")
            self._tasks.start_soon(self._maintain_forever, name="pgrun maintenance")
            # Beside maintenance and not within: a rescue must not wait until something is pruned.
            self._tasks.start_soon(Retention(self._verbs, self.db.settings).look_forever, name="pgrun retention")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return await self._stack.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            if group.exceptions == (error,):
                return False  # the block's own exception goes on as it was raised
            raise

    async def drain(self) -> None:
        """Claims nothing more and waits until what it holds has ended, at most `grace` seconds."""
        self.draining = True
        self._woken.set()
        self._slot_freed.set()
        with anyio.move_on_after(self.grace):
            while self._held:
                self._slot_freed = anyio.Event()
                await self._slot_freed.wait()
        events.emit("drained", worker_id=self.worker_id, left=len(self._held))

    def on_wake(self, queue: str) -> None:
        """Called in the listener's thread."""
        if queue in self.queues and not self._woken.is_set():
            self._connected.runtime.call_soon(self._wake)

    def on_done(self, run_ids: Sequence[str]) -> None:
        """Other workers' results are no concern of this one."""

    def on_cancel(self, run_id: str) -> None:
        """Called in the listener's thread."""
        self._connected.runtime.call_soon(self._cancel, [run_id])

    def on_state(self, listening: bool) -> None:
        """Called in the listener's thread; whatever was not heard before is looked for now."""
        self._listening = listening
        self._connected.runtime.call_soon(self._wake)

    def _wake(self) -> None:
        self._woken.set()

    async def _claim_forever(self) -> None:
        while not self.draining:
            self._slot_freed = anyio.Event()
            free = self.concurrency - len(self._held)
            if free == 0:
                await self._slot_freed.wait()
                continue
            self._woken = anyio.Event()  # whatever wakes us from here on is not seen by this claim for certain
            self._claiming_since = time.monotonic()
            claimed, pause = await self._claim(free)
            for run in claimed:
                held = _Held(run)
                self._held[held.key] = held
                self._tasks.start_soon(self._carry_out, held, name=f"pgrun {run.run_id}")
            self._claiming_since = None
            if len(claimed) < free:
                with anyio.move_on_after(pause):
                    await self._woken.wait()

    async def _claim(self, free: int) -> tuple[list[Claimed], float]:
        """The runs claimed, and for how many seconds it makes sense to sleep when there are fewer than slots."""
        settings = self.db.settings
        interval = settings.poll_interval if self._listening else settings.poll_interval_without_listen
        try:
            if tuple(self.queues) != self._registered:
                await self._register_queues()
            names = list(registered_agents())
            claimed, next_due = await self._verbs.claim(
                self.worker_id, self._registered, names, free, yields=self._yields, horizon=_HORIZON
            )
        except DatabaseError as error:
            _log.warning("no claim: %s", error)
            return [], 1.0
        for run in claimed:
            events.emit("claimed", run_id=run.run_id, name=run.name, attempt=run.attempt, fence=run.fence)
        interval *= random.uniform(0.9, 1.1)
        return claimed, interval if next_due is None else min(interval, max(next_due, 0.0))

    async def _carry_out(self, held: _Held) -> None:
        try:
            if (decision := await self._attempt(held)) is not None:
                with anyio.CancelScope(shield=True):
                    await self._record(held.claimed, decision)
        finally:
            del self._held[held.key]
            self._slot_freed.set()

    async def _attempt(self, held: _Held) -> Decision | None:
        """What follows from the attempt; None where it was stopped and others see to the run."""
        attempt = Attempt(held.claimed, self.db.settings)
        with held.scope:
            return await attempt.decide()
        return Ending(held.claimed, "cancelled", attempt.metrics) if held.why is _Stop.CANCELLED else None

    async def _record(self, claimed: Claimed, decision: Decision) -> None:
        """Writes a decision, however long the database is away: what was paid for must not be lost."""
        while True:
            try:
                await self._write(claimed, decision)
                return
            except DatabaseError as error:
                if self._leaving:
                    _log.error("%r: its outcome could not be written, it will be repeated: %s", claimed, error)
                    return
                _log.warning("%r: its outcome is not written yet: %s", claimed, error)
            except (
                Exception
            ) as error:  # a value that the database refuses, or a fault of ours: it must not end the worker
                decision = unforeseen(claimed, error)
            await anyio.sleep(1)

    async def _write(self, claimed: Claimed, decision: Decision) -> None:
        match decision:
            case Ending():
                counts, verb = await self._flusher.finish(decision), decision.status
            case Retry(delay, error, metrics):
                status = await self._verbs.retry(claimed, delay=delay, error=error, metrics=metrics)
                counts, verb = status is not None, "retried"
                _log.warning("%r failed, next attempt in %.1f s: %s", claimed, delay, error["message"])
            case Release(delay, error, metrics):
                held = [(claimed.run_id, claimed.fence)]
                counts = bool(await self._verbs.release(held, delay=delay, error=error, metrics=metrics))
                verb = "released"
                _log.warning("%r is put off for %.0f s: %s", claimed, delay, error["message"])
        if counts:
            events.emit(verb, run_id=claimed.run_id, fence=claimed.fence)
        else:
            events.emit("stale", run_id=claimed.run_id, fence=claimed.fence)
            _log.warning("%r: another worker has taken over, this outcome (%s) is not written", claimed, verb)

    def _cancel(self, run_ids: Sequence[str]) -> None:
        for held in self._held.values():
            if held.claimed.run_id in run_ids:
                events.emit("cancelling", run_id=held.claimed.run_id)
                held.stop(_Stop.CANCELLED)

    async def _maintain_forever(self) -> None:
        while True:
            pause = await self._maintenance.look(self.worker_id)
            claiming_for = 0.0 if self._claiming_since is None else time.monotonic() - self._claiming_since
            await self._maintenance.give_back_strays(self.worker_id, self._held, claiming_for)
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
            on_dead=self._on_dead,
        )
        events.emit("registered", worker_id=self.worker_id)

    async def _register_queues(self) -> None:
        queues = tuple(self.queues)
        card = WorkerCard(
            worker_id=self.worker_id,
            mode=self.mode,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=version("pgrun"),
            concurrency=self.concurrency,
            lease=self.db.settings.lease,
        )
        await self._verbs.register_worker(card, queues, list(registered_agents()))
        self._registered = queues

    def _on_dead(self) -> None:
        """Others have taken over: stop everything, write nothing, and come back as a new worker."""
        if self._leaving:  # a last heartbeat met our own goodbye
            return
        _log.error("worker %s was cut off for longer than its lease; its runs belong to others", self.worker_id)
        events.emit("lease_lost", worker_id=self.worker_id)
        for held in self._held.values():
            held.stop(_Stop.LEASE_LOST)
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

    def _leave(self) -> None:
        self._leaving = True
        self._tasks.cancel_scope.cancel()

    async def _say_goodbye(self) -> None:
        self._heartbeat.stop()
        try:
            given_back = await self._verbs.stop_worker(self.worker_id)
        except DatabaseError as error:
            _log.warning("could not say goodbye, others take over when the lease has run out: %s", error)
        else:
            events.emit("stopped", worker_id=self.worker_id, given_back=len(given_back))
