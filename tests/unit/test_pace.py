"""When a worker looks for runs: asleep until it is woken, awake in a flood, and nothing is missed in between."""

import time
from collections.abc import Callable

import anyio
import pytest

from pgrun.worker import pace as pace_module
from pgrun.worker.pace import Pace

LONGEST = 0.05
NEVER = anyio.Event


class Promises:
    """What a worker has promised, in order: seconds and whether it hands over."""

    def __init__(self) -> None:
        self.made: list[tuple[float, bool]] = []

    async def __call__(self, seconds: float, hands_over: bool) -> None:
        self.made.append((seconds, hands_over))


@pytest.fixture
def promises() -> Promises:
    return Promises()


@pytest.fixture
def pace(promises: Promises) -> Pace:
    return Pace(promises)


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"_LOOK": 0.001, "_WITHIN": 0.2, "_PROMISE": 0.04, "_FULL": 0.01}.items():
        monkeypatch.setattr(pace_module, name, seconds)


async def flood(pace: Pace, runs: int = 100) -> None:
    """Looks that find so many runs in all, while somebody wakes it all the time."""
    for _ in range(runs // 10):
        await pace.rest(10, LONGEST, woken())
    if more := runs % 10:
        await pace.rest(more, LONGEST, woken())


def woken() -> anyio.Event:
    event = anyio.Event()
    event.set()
    return event


async def lasted(rest: Callable[[], object]) -> float:
    start = time.monotonic()
    await rest()  # type: ignore[misc]
    return time.monotonic() - start


async def test_asleep_it_rests_until_it_is_woken(pace: Pace) -> None:
    event = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pace.rest, 0, 60.0, event)
        await anyio.lowlevel.checkpoint()
        event.set()


async def test_asleep_it_looks_again_after_the_longest_pause(pace: Pace, promises: Promises) -> None:
    assert await lasted(lambda: pace.rest(0, LONGEST, NEVER())) >= LONGEST
    assert promises.made == []


async def test_a_few_finds_do_not_wake_it(pace: Pace, promises: Promises) -> None:
    await flood(pace, 99)
    assert not pace.is_awake
    assert promises.made == []


async def test_many_finds_in_a_long_time_do_not_either(pace: Pace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace_module, "_WITHIN", 0.0)
    await flood(pace, 1000)
    assert not pace.is_awake


async def test_many_finds_wake_it(pace: Pace, promises: Promises) -> None:
    await flood(pace)
    assert pace.is_awake
    assert promises.made == [(0.04, False)]


async def test_awake_it_looks_by_itself_and_soon(pace: Pace) -> None:
    await flood(pace)
    assert await lasted(lambda: pace.rest(0, 60.0, NEVER())) < 0.02


async def test_the_promise_is_renewed_before_it_ends(pace: Pace, promises: Promises) -> None:
    await flood(pace)
    promised_at = time.monotonic()
    while len(promises.made) < 3:
        before = time.monotonic()
        await pace.rest(10, LONGEST, NEVER())
        if len(promises.made) == 2 and promised_at:
            assert before - promised_at < 0.04
            promised_at = 0.0
    assert promises.made == [(0.04, False)] * 3


async def test_fewer_than_woke_it_keep_it_awake(pace: Pace) -> None:
    await flood(pace)
    flood_ended = time.monotonic()
    while time.monotonic() - flood_ended < 0.3:
        await pace.rest(5, LONGEST, NEVER())
    assert pace.is_awake


async def test_a_client_that_waits_for_each_result_does_not(pace: Pace) -> None:
    await flood(pace)
    with anyio.fail_after(2):
        while pace.is_awake:
            await anyio.sleep(0.01)
            await pace.rest(1, LONGEST, NEVER())


async def test_when_the_flood_ends_it_goes_to_sleep(pace: Pace, promises: Promises) -> None:
    await flood(pace)
    while pace.is_awake:
        await pace.rest(0, LONGEST, NEVER())
    assert promises.made[-1] == (0.0, False)
    await pace.sleep()
    assert promises.made.count((0.0, False)) == 1


async def test_after_that_it_looks_at_doubling_intervals_for_what_commits_late(pace: Pace) -> None:
    await flood(pace)
    await pace.sleep()
    pauses = [await lasted(lambda: pace.rest(0, LONGEST, NEVER())) for _ in range(5)]
    for pause, expected in zip(pauses, (0.005, 0.01, 0.02, 0.04, LONGEST), strict=True):
        assert expected * 0.9 <= pause


async def test_without_a_free_slot_it_leaves_the_looking_to_others(pace: Pace, promises: Promises) -> None:
    await flood(pace)
    await pace.wait_for_slot(NEVER().wait)
    assert not pace.is_awake
    assert promises.made[-1] == (0.0, True)


async def test_a_slot_that_is_freed_soon_leaves_it_awake(pace: Pace, promises: Promises) -> None:
    await flood(pace)
    await pace.wait_for_slot(woken().wait)
    assert pace.is_awake
    assert promises.made == [(0.04, False)]


async def test_asleep_it_waits_for_a_slot_however_long(pace: Pace, promises: Promises) -> None:
    with anyio.move_on_after(0.03) as scope:
        await pace.wait_for_slot(NEVER().wait)
    assert scope.cancelled_caught
    assert promises.made == []
