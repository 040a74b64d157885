"""Where a look begins: at the first run, but for a while at the last where there is a backlog or looks are slow."""

from typing import Any

import pytest

from pgrun.db.records import Claimed
from pgrun.worker import cursor
from pgrun.worker.cursor import Cursor


class Clock:
    """Stands still unless it is told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(cursor, "time", made)
    return made


def run(due_at: float, *, priority: int = 0, queue: str = "default") -> Claimed:
    columns: dict[str, Any] = dict.fromkeys(Claimed._fields)
    return Claimed(**columns | {"queue": queue, "priority": priority, "due_at": due_at})


def look(looks: Cursor, *found: Claimed, seconds: float = 0.001, filled: bool = False) -> None:
    looks.looked(found, seconds, from_first=not looks.positions, filled=filled)


def places(looks: Cursor) -> dict[str, tuple[int, float]]:
    return {queue: (priority, round(due_at, 3)) for queue, (priority, due_at) in looks.positions.items()}


def test_without_a_backlog_every_look_begins_at_the_first_run(clock: Clock) -> None:
    looks = Cursor()
    for _ in range(5):
        assert looks.positions == {}
        look(looks, run(5.0))


def test_under_a_backlog_the_next_look_begins_a_little_before_the_last_run(clock: Clock) -> None:
    looks = Cursor()
    look(looks, run(7.0), run(9.0), run(8.0), run(3.0, queue="mail"), filled=True)
    assert places(looks) == {"default": (0, 8.95), "mail": (0, 2.95)}


def test_when_the_backlog_is_gone_looks_begin_at_the_first_run_again(clock: Clock) -> None:
    looks = Cursor()
    look(looks, run(9.0), filled=True)
    look(looks, run(10.0))
    assert looks.positions == {}


def test_every_now_and_then_a_look_begins_at_the_first_run(clock: Clock) -> None:
    looks = Cursor()
    look(looks, run(9.0), filled=True)
    clock.now += 0.019
    assert looks.positions
    clock.now += 0.002
    assert looks.positions == {}


def test_what_a_look_would_take_anyhow_is_not_counted(clock: Clock) -> None:
    looks = Cursor()
    look(looks, run(9.0), filled=True)
    look(looks, run(9.1), seconds=0.04, filled=True)
    clock.now += 0.5
    look(looks, run(9.2), seconds=0.05, filled=True)
    clock.now += 0.19
    assert looks.positions
    clock.now += 0.02
    assert looks.positions == {}


def test_looks_from_the_first_take_a_twentieth_of_the_time_at_most(clock: Clock) -> None:
    looks = Cursor()
    look(looks, run(9.0), seconds=0.1, filled=True)
    clock.now += 1.9
    assert looks.positions
    clock.now += 0.2
    assert looks.positions == {}


def test_a_slow_look_from_the_first_is_avoided_without_a_backlog_too(clock: Clock) -> None:
    looks = Cursor()
    look(looks, run(9.0), seconds=0.05)
    assert looks.positions
    look(looks, run(9.5), seconds=0.001)
    assert places(looks) == {"default": (0, 9.45)}


def test_a_look_from_the_last_that_finds_nothing_is_followed_by_one_from_the_first(clock: Clock) -> None:
    looks = Cursor()
    look(looks, run(9.0), seconds=0.05)
    look(looks)
    assert looks.positions == {}


def test_where_both_are_slow_alike_it_is_not_the_position(clock: Clock) -> None:
    looks = Cursor()
    look(looks, run(9.0), seconds=0.05)
    look(looks, run(9.5), seconds=0.05)
    clock.now += 2
    look(looks, run(9.6), seconds=0.05)
    assert looks.positions == {}


def test_a_single_urgent_run_does_not_take_the_position_back_but_a_backlog_of_them_does(clock: Clock) -> None:
    looks = Cursor()
    look(looks, run(9.0), filled=True)
    clock.now += 1
    look(looks, run(9.5, priority=-5), run(9.2), filled=True)
    assert places(looks) == {"default": (0, 9.15)}
    clock.now += 1
    look(looks, run(9.7, priority=-5), filled=True)
    assert places(looks) == {"default": (-5, 9.65)}
