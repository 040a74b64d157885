"""The public API without the a: called from plain functions and threads, refused inside an event loop."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import FrameType

import anyio
import anyio.to_thread
import pytest

from pgrun import Agent, UsageError
from pgrun._sync import iterate_sync, run_sync


async def add(a: int, b: int) -> int:
    await anyio.lowlevel.checkpoint()
    return a + b


async def fail() -> None:
    raise KeyError("lost")


def test_the_result_is_passed_through() -> None:
    assert run_sync(add, 1, 2) == 3
    assert run_sync(partial(add, 1, b=2)) == 3


def test_an_exception_is_passed_through() -> None:
    with pytest.raises(KeyError, match="lost"):
        run_sync(fail)


def test_all_threads_share_one_event_loop() -> None:
    met = threading.Barrier(8, timeout=10)

    async def loop_id(_: int) -> int:
        return id(asyncio.get_running_loop())

    def call(number: int) -> tuple[int, int]:
        met.wait()
        return run_sync(loop_id, number), run_sync(add, number, 1)

    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(call, range(8))]
    assert len({loop for loop, _ in found}) == 1
    assert [result for _, result in found] == [*range(1, 9)]


def test_callers_do_not_wait_for_each_other() -> None:
    barrier = asyncio.Barrier(3)

    async def meet() -> str:
        await barrier.wait()
        return "met"

    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(run_sync, meet) for _ in range(3)]
        assert [call.result(timeout=10) for call in calls] == ["met"] * 3


async def test_inside_an_event_loop_it_names_what_to_await_instead() -> None:
    agent = Agent(model="gpt-5-mini")
    with pytest.raises(UsageError, match=r"this would block the running event loop; await arun\(…\) instead"):
        agent.run("?")
    with pytest.raises(UsageError, match=r"await aget_run_output\(…\) instead"):
        agent.get_run_output("r1")
    with pytest.raises(UsageError, match=r"await acancel_run\(…\) instead"):
        agent.cancel_run("r1")
    with pytest.raises(UsageError, match=r"await add\(…\) instead"):
        run_sync(add, 1, 2)


async def test_a_thread_of_an_event_loop_may_block() -> None:
    assert await anyio.to_thread.run_sync(run_sync, add, 1, 2) == 3
    assert await asyncio.to_thread(run_sync, add, 1, 2) == 3
    assert await asyncio.get_running_loop().run_in_executor(None, run_sync, add, 1, 2) == 3


def test_a_thread_of_an_event_loop_that_anyio_runs_may_block_as_well() -> None:
    async def main() -> int:
        return await asyncio.to_thread(run_sync, add, 1, 2)

    assert anyio.run(main) == 3


def test_ctrl_c_cancels_what_was_called() -> None:
    cancelled: Future[bool] = Future()

    async def interrupt_and_wait() -> None:
        try:
            while not main_thread_waits_in_run_sync():
                await anyio.lowlevel.checkpoint()
            os.kill(os.getpid(), signal.SIGINT)
            await anyio.sleep_forever()
        except BaseException as error:
            cancelled.set_result(isinstance(error, anyio.get_cancelled_exc_class()))
            raise

    with pytest.raises(KeyboardInterrupt):
        run_sync(interrupt_and_wait)
    assert cancelled.result(timeout=10)


def main_thread_waits_in_run_sync() -> bool:
    """Whether run_sync has started its coroutine and waits for the result."""
    frame: FrameType | None = sys._current_frames()[threading.main_thread().ident or 0]
    while frame is not None and frame.f_code.co_qualname != "Future.result":
        frame = frame.f_back
    return frame is not None and frame.f_back is not None and frame.f_back.f_code is run_sync.__code__


def test_an_iteration_goes_through_the_same_thread_and_closes_what_it_leaves() -> None:
    threads = set[str]()
    closed: list[str] = []

    async def count(to: int) -> AsyncGenerator[int, None]:
        try:
            for number in range(to):
                threads.add(threading.current_thread().name)
                yield number
        finally:
            closed.append(threading.current_thread().name)

    assert [*iterate_sync(count, 3)] == [0, 1, 2]
    for number in iterate_sync(count, 3):
        if number == 1:
            break
    assert len(closed) == 2
    assert {*closed} == threads == {"pgrun-sync"}


async def test_an_iteration_inside_an_event_loop_says_how_to_do_it() -> None:
    async def tell() -> AsyncGenerator[int, None]:
        yield 1

    with pytest.raises(UsageError, match=r"would block the running event loop; async for … in tell\(…\) instead"):
        iterate_sync(tell)
