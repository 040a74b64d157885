"""Event loops in threads of their own, one per purpose and process: started when first needed, ended with the process."""

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

T = TypeVar("T")

_all: "weakref.WeakSet[LoopThread]" = weakref.WeakSet()


class LoopThread:
    """An event loop that runs in a daemon thread from its first use on."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._portal: BlockingPortal | None = None
        self._keeper: AbstractContextManager[BlockingPortal] | None = None
        self._ident = 0
        _all.add(self)

    def start(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> "Future[T]":
        """Runs a coroutine function there; the future has its result, and cancelling the future cancels it."""
        return self._running().start_task_soon(function, *args)

    def is_here(self) -> bool:
        """Whether the caller is in this thread."""
        return threading.get_ident() == self._ident

    def _running(self) -> BlockingPortal:
        with self._lock:
            if self._portal is None:
                self._keeper = start_blocking_portal(name=self._name)
                self._portal = self._keeper.__enter__()
                self._ident = self._portal.call(threading.get_ident)
                atexit.register(self._stop)
            return self._portal

    def _stop(self) -> None:
        """Cancels what still runs there, so that it can say goodbye, and waits for it."""
        with self._lock:
            portal, keeper = self._portal, self._keeper
            self._portal = self._keeper = None
        if portal is not None and keeper is not None:
            with suppress(RuntimeError):  # it has ended by itself
                portal.call(portal.stop, True)
            keeper.__exit__(None, None, None)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._portal = self._keeper = None
        self._ident = 0


def _forget_all() -> None:
    """In a forked child the threads do not exist any more."""
    for thread in tuple(_all):
        thread._forget()


os.register_at_fork(after_in_child=_forget_all)
