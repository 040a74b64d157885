"""When a schedule comes round: cron over changes of the clock, missed ticks, and many workers that look at one schedule."""

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgrun import UsageError
from pgrun.schedule import LATE, MOST_MISSED, Timing, due

BERLIN = ZoneInfo("Europe/Berlin")
SPRING = datetime(2026, 3, 29, tzinfo=BERLIN)  # 02:00 is 03:00
AUTUMN = datetime(2026, 10, 25, tzinfo=BERLIN)  # 03:00 is 02:00 again


def ticks_of(timing: Timing, begin: datetime, end: datetime) -> list[datetime]:
    found: list[datetime] = []
    moment = begin
    while (tick := timing.next_after(moment)) is not None and tick <= end:
        found.append(tick)
        moment = tick
    return found


def local(cron: str, day: datetime) -> list[str]:
    """The ticks of a day in Berlin, as its clocks show them, with the offset."""
    begin = day.astimezone(UTC) - timedelta(seconds=1)
    end = (day + timedelta(days=1)).astimezone(UTC) - timedelta(seconds=1)
    ticks = ticks_of(Timing(cron=cron, timezone="Europe/Berlin"), begin, end)
    return [tick.astimezone(BERLIN).strftime("%H:%M%z")[:-2] for tick in ticks]


def test_what_has_a_fixed_time_in_the_hour_that_is_left_out_comes_right_after_it() -> None:
    assert local("30 2 * * *", SPRING) == ["03:00+02"]
    assert local("0,30 2 * * *", SPRING) == ["03:00+02"]  # not twice
    assert local("0 2,3 * * *", SPRING) == ["03:00+02"]
    assert local("0 1,4 * * *", SPRING) == ["01:00+01", "04:00+02"]


def test_what_has_a_fixed_time_in_the_hour_that_comes_twice_comes_once() -> None:
    assert local("30 2 * * *", AUTUMN) == ["02:30+02"]
    assert local("0 1,2,3 * * *", AUTUMN) == ["01:00+02", "02:00+02", "03:00+01"]


def test_what_comes_every_hour_keeps_to_real_time() -> None:
    assert local("30 * * * *", SPRING)[:3] == ["00:30+01", "01:30+01", "03:30+02"]
    assert local("30 * * * *", AUTUMN)[:4] == ["00:30+02", "01:30+02", "02:30+02", "02:30+01"]
    assert (len(local("*/10 * * * *", SPRING)), len(local("*/10 * * * *", AUTUMN))) == (23 * 6, 25 * 6)


CRONS = st.builds(
    " ".join,
    st.tuples(
        st.sampled_from(["0", "30", "*", "*/20", "0,15,59", "10-12"]),
        st.sampled_from(["2", "*", "*/2", "1-3", "0", "23", "1,2,3"]),
        st.sampled_from(["*", "25-31", "29", "1"]),
        st.sampled_from(["*", "3,10", "APR"]),
        st.sampled_from(["*", "SUN", "MON-FRI", "7"]),
    ),
)
ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Asia/Kolkata"]
)
MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))
CHANGES = st.builds(  # around the changes of the clocks of Berlin
    lambda day, hours: day.astimezone(UTC) + timedelta(hours=hours), st.sampled_from([SPRING, AUTUMN]), st.floats(-3, 6)
)
TIMINGS = st.one_of(
    st.builds(lambda cron, zone: Timing(cron=cron, timezone=zone), CRONS, ZONES),
    st.builds(lambda seconds: Timing(every=timedelta(seconds=seconds)), st.floats(60, 100_000)),
)


@settings(max_examples=60, deadline=None)
@given(TIMINGS, st.one_of(MOMENTS, CHANGES))
def test_ticks_rise_and_do_not_depend_on_where_one_begins_to_count(timing: Timing, moment: datetime) -> None:
    first = timing.next_after(moment)
    assert first is not None
    assert first > moment
    assert first.tzinfo is UTC
    ticks = ticks_of(timing, moment, min(first + timedelta(days=4), moment + timedelta(days=8)))[:50]
    assert all(one < other for one, other in pairwise(ticks))
    for one, other in pairwise(ticks):
        between = one + (other - one) / 3
        assert timing.next_after(between) == timing.next_after(one) == other


@settings(max_examples=40, deadline=None)
@given(TIMINGS, st.one_of(MOMENTS, CHANGES), st.floats(0, 400_000), st.sampled_from([1, 7, MOST_MISSED]))
def test_the_last_ticks_are_those_that_counting_would_find(
    timing: Timing, moment: datetime, seconds: float, most: int
) -> None:
    first = timing.next_after(moment)
    assert first is not None
    now = first + timedelta(seconds=seconds)
    assert timing.last_of(first, now, most=most) == [first, *ticks_of(timing, first, now)][-most:]


@pytest.mark.parametrize("day", [SPRING, AUTUMN])
@pytest.mark.parametrize("cron", ["30 2 * * *", "*/15 * * * *", "0,30 1-3 * * *", "59 23 * * *"])
def test_eight_workers_over_a_change_of_the_clock_fire_each_tick_once(cron: str, day: datetime) -> None:
    """Each looks now and then, decides by what it has read, and writes only if nobody was faster; the times are made up."""
    timing = Timing(cron=cron, timezone="Europe/Berlin")
    dice = random.Random(f"{cron}{day}")
    begin, end = day.astimezone(UTC) - timedelta(hours=12), day.astimezone(UTC) + timedelta(hours=60)
    fired: list[datetime] = []
    row = timing.next_after(begin)
    under_way: list[tuple[datetime, datetime, list[datetime], datetime | None]] = []
    now = begin
    while now < end:
        now += timedelta(seconds=dice.uniform(0, 20))
        for _ in range(8):
            if row is not None and row <= now and dice.random() < 0.7:
                ticks, next_at = due(
                    timing, "all", row, now - timedelta(seconds=dice.uniform(0, min(5, (now - row).seconds)))
                )
                under_way.append((row, now, ticks, next_at))
        dice.shuffle(under_way)
        while under_way and dice.random() < 0.8:
            expected, _, ticks, next_at = under_way.pop()
            if row == expected:  # what fire_schedule.sql asks
                fired += ticks
                row = next_at
    assert fired == ticks_of(timing, begin, fired[-1])
    assert fired[-1] > end - timedelta(hours=25)


HOUR = Timing(every=timedelta(hours=1))
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def hours(*numbers: int) -> list[datetime]:
    return [NOON + timedelta(hours=number) for number in numbers]


@pytest.mark.parametrize(
    ("missed", "late", "fired"),
    [
        ("all", timedelta(hours=3), hours(0, 1, 2, 3)),
        ("once", timedelta(hours=3), hours(3)),
        ("skip", timedelta(hours=3), hours(3)),  # the last is on time
        ("once", timedelta(hours=2, minutes=30), hours(2)),
        ("skip", timedelta(hours=2, minutes=30), []),
        ("skip", LATE, hours(0)),
        ("all", timedelta(hours=500), hours(*range(401, 501))),
    ],
)
def test_what_becomes_of_missed_ticks_is_said_by_missed(missed: str, late: timedelta, fired: list[datetime]) -> None:
    now = NOON + late
    assert due(HOUR, missed, NOON, now) == (fired, HOUR.next_after(now))


def test_a_moment_comes_once() -> None:
    once = Timing(at=NOON.astimezone(BERLIN))
    assert once.next_after(NOON - timedelta(days=1)) == NOON
    assert once.next_after(NOON) is None
    assert due(once, "all", NOON, NOON + timedelta(days=1)) == ([NOON], None)
    assert due(once, "skip", NOON, NOON + timedelta(days=1)) == ([], None)


def test_every_so_often_is_the_same_whoever_asks_when() -> None:
    assert Timing(every=timedelta(minutes=5)).next_after(NOON + timedelta(seconds=7)) == NOON + timedelta(minutes=5)
    tenths = Timing(every=timedelta(seconds=0.1))
    assert tenths.next_after(NOON + timedelta(seconds=86_400.1)) == NOON + timedelta(seconds=86_400.2)


def test_with_six_fields_the_first_is_the_second() -> None:
    assert ticks_of(Timing(cron="*/20 0 12 * * *"), NOON - timedelta(hours=1), NOON + timedelta(hours=1)) == [
        NOON + timedelta(seconds=seconds) for seconds in (0, 20, 40)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "one of cron=, every= and at="),
        ({"cron": "* * * * *", "every": timedelta(1)}, "one of cron="),
        ({"cron": "61 * * * *"}, "cron='61 .*bad minute"),
        ({"cron": "* * *"}, "wrong number of fields"),
        ({"cron": "@daily"}, "wrong number of fields"),
        ({"cron": "0 0 30 2 *"}, "cron='0 0 30 2 "),
        ({"cron": "0 0 * 2 MON#5 "}, None),  # once in 28 years
        ({"cron": "* * * * *", "timezone": "Europe/Atlantis"}, "timezone='Europe/Atlantis'"),
        ({"cron": "* * * * *", "timezone": "../../etc/passwd"}, "timezone="),
        ({"cron": "* * * * *", "timezone": "Europe"}, "timezone="),
        ({"every": timedelta(0)}, "a tenth of a second"),
        ({"at": datetime(2026, 1, 1)}, "an aware datetime"),
    ],
)
def test_a_timing_that_cannot_be_is_refused(arguments: dict[str, Any], message: str | None) -> None:
    if message is None:
        Timing(**arguments)
        return
    with pytest.raises(UsageError, match=message):
        Timing(**arguments)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="0123456789*/-,#LW MONJAN", max_size=25))
def test_whatever_is_written_as_an_expression_is_a_timing_or_refused(cron: str) -> None:
    try:
        timing = Timing(cron=cron)
    except UsageError:
        return
    assert timing.next_after(NOON) is not None
