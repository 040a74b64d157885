"""The worker's end of the leash: orders come down, and an orphan goes, whatever its event loop does."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.until import until

from pgrun.errors import UsageError
from pgrun.worker.leash import Leash
from pgrun.worker.orders import Orders, Urgency

Ends = tuple[socket.socket, int]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """The supervisor's end, and the descriptor that a worker gets."""
    ours, theirs = socket.socketpair()
    with ours:
        yield ours, theirs.detach()


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The codes with which the process would have ended; an orphan has no time beyond its grace."""
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise SystemExit  # ends the thread instead

    monkeypatch.setattr("threading.excepthook", lambda _: None)
    monkeypatch.setattr("pgrun.worker.leash.os._exit", leave)
    monkeypatch.setattr("pgrun.worker.leash.PATIENCE", 0.0)
    yield codes
    for thread in threading.enumerate():
        if thread.name == "pgrun-leash":
            thread.join(5)


class BlockedLoop:
    """An event loop that never comes to what it is asked to do."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def call_soon(self, function: Callable[..., None], *args: Any) -> None:
        self.asked.append(args)


async def test_orders_reach_the_event_loop_and_an_orphan_ends_even_if_that_is_blocked(
    ends: Ends, exits: list[int]
) -> None:
    supervisor, fd = ends
    loop = BlockedLoop()
    Leash(fd, grace=0.0).follow(Orders(), loop.call_soon)
    supervisor.send(bytes([Urgency.DRAIN]))
    supervisor.send(bytes([Urgency.STOP]))
    await until(lambda: len(loop.asked) == 2)
    assert not exits
    supervisor.close()
    await until(lambda: exits == [1])
    assert loop.asked == [
        (Urgency.DRAIN, "the supervisor says so"),
        (Urgency.STOP, "the supervisor says so"),
        (Urgency.DRAIN, "the supervisor is gone"),
    ]


@pytest.mark.parametrize("goes", [True, False], ids=["a supervisor that goes", "an order to drain"])
async def test_a_worker_that_holds_nothing_yet_ends_on_the_spot(goes: bool, ends: Ends, exits: list[int]) -> None:
    supervisor, fd = ends
    Leash(fd, grace=60.0)
    if goes:
        supervisor.close()
    else:
        supervisor.send(bytes([Urgency.DRAIN]))
    await until(lambda: exits == [0])


async def test_the_supervisor_hears_when_a_worker_serves(ends: Ends, exits: list[int]) -> None:
    supervisor, fd = ends
    leash = Leash(fd, grace=0.0)
    leash.follow(Orders(), BlockedLoop().call_soon)
    leash.say_ready()
    assert supervisor.recv(1)
    supervisor.close()
    leash.say_ready()  # to nobody, which is no error
    await until(lambda: exits == [1])


def test_what_is_no_socket_is_no_leash() -> None:
    read, write = os.pipe()
    with pytest.raises(UsageError, match=f"--leash {read}: "):
        Leash(read, grace=0.0)
    os.close(read)
    os.close(write)
