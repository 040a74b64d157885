"""Event loops in threads of their own, one per purpose and process: started when first needed, ended with the process."""

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

T = TypeVar("T")

_all: "weakref.WeakSet[LoopThread]" = weakref.WeakSet()


class LoopThread:
    """An event loop that runs in a daemon thread from its first use on."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._portal: BlockingPortal | None = None
        self._thread: threading.Thread | None = None
        _all.add(self)

    def start(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> "Future[T]":
        """Runs a coroutine function there; the future has its result, and cancelling the future cancels it."""
        return self._running().start_task_soon(function, *args)

    def is_here(self) -> bool:
        """Whether the caller is in this thread."""
        return threading.current_thread() is self._thread

    def _running(self) -> BlockingPortal:
        with self._lock:
            if self._portal is None:
                ready: Future[BlockingPortal] = Future()
                # Nothing of the context of whoever happens to come first.
                self._thread = threading.Thread(target=Context().run, args=(_live, ready), name=self._name, daemon=True)
                self._thread.start()
                self._portal = ready.result()
                atexit.register(self._stop)
            return self._portal

    def _stop(self) -> None:
        """Cancels what still runs there, so that it can say goodbye, and waits for it."""
        with self._lock:
            portal, thread = self._portal, self._thread
            self._portal = self._thread = None
        if portal is not None and thread is not None:
            with suppress(RuntimeError):  # it has ended by itself
                portal.call(portal.stop, True)
            thread.join()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._portal = self._thread = None


def _live(ready: "Future[BlockingPortal]") -> None:
    """The thread: an event loop that does what its portal is told, until that is stopped.

    Not by anyio's `start_blocking_portal`: that is a generator, and in a forked child, where the thread is gone, it would tell
    it to stop as soon as it is forgotten, and wait for ever.
    """

    async def serve() -> None:
        async with BlockingPortal() as portal:
            ready.set_result(portal)
            await portal.sleep_until_stopped()

    try:
        anyio.run(serve)
    except BaseException as error:
        if ready.done():
            raise
        ready.set_exception(error)


def _forget_all() -> None:
    """In a forked child the threads do not exist any more."""
    for thread in tuple(_all):
        thread._forget()


os.register_at_fork(after_in_child=_forget_all)
