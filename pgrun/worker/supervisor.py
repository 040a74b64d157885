"""`pgrun worker --processes N`: the process that keeps N worker processes alive, and executes nothing itself.

Each of them is a whole `pgrun worker`, started afresh, because neither threads nor database connections survive a fork. The
first has to serve before the others start: an option that cannot be is reported once, and an import that fails is tried by one.
"""

import logging
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from subprocess import DEVNULL
from typing import Self

import anyio
import anyio.abc

from pgrun.retry import RetryPolicy
from pgrun.worker.orders import LAST_WORD, PATIENCE, Orders, Urgency

_log = logging.getLogger("pgrun.worker")

_USAGE = 2  # exit code of a command whose options cannot be
_SOON = 60.0  # seconds; a process that dies younger than this is restarted later each time
_BACKOFF = RetryPolicy(base_delay=1.0, max_delay=60.0)


async def supervise(command: Sequence[str], *, processes: int, grace: float) -> int:
    """Keeps worker processes alive until SIGTERM or SIGINT, which it passes on; returns the exit code when all have ended.

    Args:
        command: What to start; ``--leash`` and a file descriptor are added.
        processes: How many.
        grace: Seconds for which each of them drains. One that stays much longer is killed.

    Returns:
        0 after a clean drain, 1 if a worker failed to stop, 2 if the options cannot be.
    """
    supervisor = _Supervisor(command, grace)
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervisor.orders.heed, signals)
            tasks.start_soon(supervisor.pass_on)
            await supervisor.keep(processes)
            tasks.cancel_scope.cancel()
    _log.info("all worker processes have ended")
    return supervisor.exit_code


class _Supervisor:
    def __init__(self, command: Sequence[str], grace: float) -> None:
        self.orders = Orders()
        self.exit_code = 0
        self._command = command
        self._grace = grace
        self._children: set[_Child] = set()
        self._one_has_served = anyio.Event()

    async def keep(self, processes: int) -> None:
        """Keeps this many processes, the first of them alone until it has served, and returns when the last has ended."""
        async with anyio.create_task_group() as slots:
            slots.start_soon(self._keep_one, slots.cancel_scope)
            await self._one_has_served.wait()
            for _ in range(processes - 1):
                slots.start_soon(self._keep_one, slots.cancel_scope)

    async def _keep_one(self, slots: anyio.CancelScope) -> None:
        """Keeps one process, and the next one when it has died, until it is time to go."""
        early_deaths = 0
        while self._goes_on:
            born = time.monotonic()
            death = await self._see_one_through()
            if self._goes_on:
                age = time.monotonic() - born
                early_deaths = early_deaths + 1 if age < _SOON else 1
                await self._pause(f"{death} after {age:.1f} s", early_deaths)
        if not self._one_has_served.is_set():
            slots.cancel()

    async def _see_one_through(self) -> str:
        """Starts a process, waits for its end, and returns how it ended."""
        try:
            child = await _Child.start(self._command)
        except OSError as error:
            return f"no worker process could be started: {error}"
        self._children.add(child)
        _log.info("worker process %s starts", child.pid)
        child.tell(self.orders.urgency)  # what was ordered while it was starting
        code = await child.end(on_ready=self._one_has_served.set)
        self._children.remove(child)
        death = f"worker process {child.pid} ended: {_told(code)}"
        if self.orders.urgency is not Urgency.STAY:
            _log.info(death)
            self.exit_code = 1 if child.has_served and code else self.exit_code
        elif code == _USAGE and not self._one_has_served.is_set():
            self.exit_code = _USAGE  # the process itself has said why
        return death

    @property
    def _goes_on(self) -> bool:
        return self.orders.urgency is Urgency.STAY and self.exit_code == 0

    async def _pause(self, death: str, early_deaths: int) -> None:
        """The first death is made good at once; the next one of a process that keeps dying is waited with."""
        delay = _BACKOFF.delay(early_deaths - 1) if early_deaths > 1 else 0.0
        _log.warning("%s; another one starts in %.1f s", death, delay)
        with anyio.move_on_after(delay):
            await self.orders.at_least(Urgency.DRAIN)

    async def pass_on(self) -> None:
        """Tells all processes what the supervisor is told, and kills those that do not heed it."""
        reason = await self.orders.at_least(Urgency.DRAIN)
        _log.info(
            "%s: %s worker processes finish what they hold, at most %g s", reason, len(self._children), self._grace
        )
        self._tell_all()
        with anyio.move_on_after(self._grace + PATIENCE):
            _log.warning("%s: stopping them at once", await self.orders.at_least(Urgency.STOP))
            self._tell_all()
            await anyio.sleep(LAST_WORD + 2)
        for child in self._children:
            _log.error("worker process %s does not stop and is killed", child.pid)
            self.exit_code = 1
            child.kill()

    def _tell_all(self) -> None:
        for child in self._children:
            child.tell(self.orders.urgency)


class _Child:
    """A worker process, and the supervisor's end of its leash."""

    def __init__(self, process: anyio.abc.Process, leash: socket.socket) -> None:
        self.pid = process.pid
        self.has_served = False
        self._process = process
        self._leash = leash

    @classmethod
    async def start(cls, command: Sequence[str]) -> Self:
        """Starts it in a session of its own, so that neither Ctrl-C nor the end of the terminal reaches it."""
        ours, theirs = socket.socketpair()
        try:
            process = await anyio.open_process(
                [*command, "--leash", str(theirs.fileno())],
                stdin=DEVNULL,
                stdout=None,
                stderr=None,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, ours)

    def tell(self, urgency: Urgency) -> None:
        """Passes an order on; a process that has just ended does not hear it."""
        if urgency is not Urgency.STAY:
            with suppress(OSError):
                self._leash.send(bytes([urgency]))

    def kill(self) -> None:
        """Ends it with SIGKILL."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def end(self, *, on_ready: Callable[[], None]) -> int:
        """Waits until it has ended and returns its exit code, or the negative number of a signal."""
        with self._leash:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._hear, on_ready)
                code = await self._process.wait()
                tasks.cancel_scope.cancel()
        return code

    async def _hear(self, on_ready: Callable[[], None]) -> None:
        await anyio.wait_readable(self._leash)
        with suppress(OSError):
            if self._leash.recv(1):
                self.has_served = True
                on_ready()


def _told(code: int) -> str:
    names = {-number: number.name for number in signal.Signals}
    return f"killed by {names.get(code, f'signal {-code}')}" if code < 0 else f"exit code {code}"
