"""LoopWatch: an event loop that stands still is noticed, with the line that blocks it."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

import anyio
import pytest

from pgrun.worker.heartbeat import LoopWatch

PATIENCE = 0.05  # seconds
BLOCKED = "the event loop has been blocked for"


class Said(logging.Handler):
    """Collects what is logged, and lets a blocked thread wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self.messages.append(record.getMessage())
            self._changed.notify_all()

    def block_until(self, words: str) -> str:
        with self._changed:
            assert self._changed.wait_for(lambda: any(words in message for message in self.messages), timeout=10)
        return next(message for message in self.messages if words in message)


def call_soon_here() -> Callable[[Callable[[], None]], None]:
    loop = asyncio.get_running_loop()

    def call_soon(function: Callable[[], None]) -> None:
        loop.call_soon_threadsafe(function)

    return call_soon


@pytest.fixture
def said() -> Iterator[Said]:
    handler = Said()
    logger = logging.getLogger("pgrun.worker")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture
async def watch() -> AsyncIterator[LoopWatch]:
    watch = LoopWatch(call_soon_here(), PATIENCE)
    yield watch
    watch.stop()


async def test_a_blocked_loop_is_reported_with_the_line_that_blocks_it(watch: LoopWatch, said: Said) -> None:
    report = said.block_until(BLOCKED)
    assert "said.block_until(" in report
    assert "in test_a_blocked_loop_is_reported_with_the_line_that_blocks_it" in report
    assert watch.blocked_for() > PATIENCE


async def test_a_standstill_is_reported_once_however_long_it_lasts(watch: LoopWatch, said: Said) -> None:
    said.block_until(BLOCKED)
    time.sleep(2 * PATIENCE)  # noqa: ASYNC251  stands still for longer
    assert len(said.messages) == 1


async def test_when_the_loop_runs_again_that_is_reported_too(watch: LoopWatch, said: Said) -> None:
    for _ in range(2):
        said.block_until(BLOCKED)
        await anyio.to_thread.run_sync(said.block_until, "the event loop runs again after")
        assert watch.blocked_for() == 0
        said.messages.clear()


async def test_a_loop_that_runs_is_left_in_peace(said: Said) -> None:
    call_soon, asked = call_soon_here(), threading.Semaphore(0)

    def count(function: Callable[[], None]) -> None:
        call_soon(function)
        asked.release()

    watch = LoopWatch(count, 10 * PATIENCE)
    for _ in range(2):
        await anyio.to_thread.run_sync(asked.acquire)
    assert watch.blocked_for() == 0
    assert said.messages == []
    watch.stop()


async def test_a_watch_that_was_stopped_says_no_more(watch: LoopWatch, said: Said) -> None:
    stopped = LoopWatch(call_soon_here(), PATIENCE)
    stopped.stop()
    said.block_until(BLOCKED)
    time.sleep(2 * PATIENCE)  # noqa: ASYNC251  time for the other one
    assert len(said.messages) == 1
