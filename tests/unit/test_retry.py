"""RetryPolicy: how long to wait after an attempt has failed."""

from typing import Any

import pytest

from pgrun import RetryPolicy, UsageError

EXACT = RetryPolicy(base_delay=1.0, max_delay=60.0, jitter=0.0)
ROUNDS = range(300)


def test_the_delay_doubles_up_to_its_limit() -> None:
    assert [EXACT.delay(attempt) for attempt in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_run_with_very_many_attempts_waits_no_longer() -> None:
    assert EXACT.delay(32767) == 60
    assert RetryPolicy(base_delay=0.0, jitter=0.0).delay(32767) == 0


def test_jitter_spreads_on_both_sides_and_stays_within_its_share() -> None:
    policy = RetryPolicy(base_delay=10.0, jitter=0.25)
    delays = [policy.delay(1) for _ in ROUNDS]
    assert all(7.5 <= delay <= 12.5 for delay in delays)
    assert min(delays) < 9 < 11 < max(delays)


def test_it_never_waits_less_than_the_provider_asked_for() -> None:
    policy = RetryPolicy(base_delay=1.0, max_delay=5.0, jitter=0.25)
    delays = [policy.delay(1, retry_after=30.0) for _ in ROUNDS]
    assert all(30.0 <= delay <= 37.5 for delay in delays)
    assert max(delays) > 33, "everyone was told the same second, so they are spread as well"


def test_a_short_retry_after_does_not_shorten_the_delay() -> None:
    assert EXACT.delay(5, retry_after=2.0) == 16
    assert EXACT.delay(1, retry_after=0.0) == 1
    assert EXACT.delay(1, retry_after=None) == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"max_attempts": 0}, "max_attempts is 0; a run has 1 to 32767 attempts"),
        ({"max_attempts": 32768}, "max_attempts is 32768"),
        ({"max_attempts": 2.5}, "max_attempts is 2.5"),
        ({"max_attempts": "5"}, "max_attempts is '5'"),
        ({"base_delay": -1.0}, "base_delay and max_delay are seconds >= 0"),
        ({"max_delay": -0.1}, "base_delay and max_delay are seconds >= 0"),
        ({"jitter": -0.1}, "jitter is a share between 0 and 1"),
        ({"jitter": 1.1}, "jitter is a share between 0 and 1"),
        ({"base_delay": float("nan")}, "base_delay and max_delay are seconds >= 0"),
        ({"max_delay": float("nan")}, "base_delay and max_delay are seconds >= 0"),
        ({"jitter": float("nan")}, "jitter is a share between 0 and 1"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        RetryPolicy(**wrong)
