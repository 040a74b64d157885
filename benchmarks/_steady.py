"""A worker process and a client process at a fixed rate of calls, and what memory both take in the course of time."""

import multiprocessing
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import anyio
from _bench import TASKS, database, worker
from _load import called, calling
from _resident import growth, resident

_EVERY = 5.0  # seconds between samples
_MOST_OPEN = 1000  # calls; a client that cannot keep up must not look like one that leaks


def keep_up(on: str, *, rate: float, seconds: float) -> Mapping[str, Any]:
    """Samples (seconds, megabytes of the worker, megabytes of the client), what they grow in an hour, and calls per second."""
    samples: list[tuple[float, float, float]] = []
    receiver, sender = multiprocessing.Pipe(duplex=False)
    with database(on) as url, worker(url, *TASKS, "--concurrency", str(_MOST_OPEN)) as serving:
        client = multiprocessing.get_context("spawn").Process(target=_call, args=[url, rate, seconds, sender])
        client.start()
        sender.close()  # or its end would not be noticed
        assert client.pid is not None
        began = time.monotonic()
        while not receiver.poll(_EVERY):
            at = time.monotonic() - began
            samples.append((round(at, 1), resident(serving.pid) / 1e6, resident(client.pid) / 1e6))
        completed = receiver.recv()
        client.join()
    times, workers, clients = zip(*samples, strict=True)
    return {
        "calls per second": round(completed / seconds, 1),
        "growth, MB per hour": {
            "worker": round(growth(times, workers), 2),
            "client": round(growth(times, clients), 2),
        },
        "samples": samples,
    }


def _call(url: str, rate: float, seconds: float, sender: Connection) -> None:
    sender.send(anyio.run(_call_steadily, url, rate, seconds))


async def _call_steadily(url: str, rate: float, seconds: float) -> int:
    completed = 0
    free = anyio.Semaphore(_MOST_OPEN)

    async def call() -> None:
        nonlocal completed
        await called(task)
        completed += 1
        free.release()

    async with calling(url) as task, anyio.create_task_group() as calls:
        due = time.monotonic()
        until = due + seconds
        while due < until and time.monotonic() < until:
            await free.acquire()
            calls.start_soon(call)
            due += 1 / rate
            await anyio.sleep(max(0.0, due - time.monotonic()))
    return completed
