"""What runs execute in the benchmarks. A daemon gets these functions from `_daemon_tasks`, a client by ``db.task(…)``."""

import time

import anyio

starts: list[float] = []
"""When the no-ops of this process have started, on the clock of `time.monotonic`."""


async def noop(number: int, text: str = "") -> int:
    """Does nothing but note its start; with the text its input is as large as one wants it to be."""
    starts.append(time.monotonic())
    return number


async def stamp() -> float:
    """When it started, on the clock of `time.monotonic`, which all processes of a machine share."""
    return time.monotonic()


async def nap(seconds: float) -> None:
    await anyio.sleep(seconds)
