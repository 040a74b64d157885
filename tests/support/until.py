"""Waits for what announces itself by no event: a row, a log line, a list that another thread fills."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import anyio

T = TypeVar("T")

Heard = list[tuple[str, dict[str, Any]]]
"""What the fixture `heard` gives."""


async def until(condition: Callable[[], T], *, within: float = 10.0, shown: object = "it") -> T:
    """The first true value of `condition`, which is asked again and again while other tasks run.

    Args:
        condition: What to ask.
        within: Seconds.
        shown: What a failure shows, as it is then.
    """
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"did not happen within {within:g} s: {shown}"
        await anyio.sleep(0.005)
    return value


async def until_heard(heard: Heard, name: str, *, within: float = 10.0, **facts: Any) -> dict[str, Any]:
    """The facts of the first event of this name that has these facts."""

    def found() -> list[dict[str, Any]]:
        return [said for event, said in heard if event == name and facts.items() <= said.items()]

    return (await until(found, within=within, shown=heard))[0]
