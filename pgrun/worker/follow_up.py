"""What follows from the exception with which an attempt has ended."""

from typing import TypeVar

from pgrun.errors import AttemptError, AttemptTimeout, ModelUnavailable, UsageError
from pgrun.retry import RetryPolicy
from pgrun.verdict import Discard, Retry

E = TypeVar("E", bound=BaseException)


def delay_after(error: BaseException, policy: RetryPolicy, attempt: int, max_attempts: int) -> float | None:
    """Seconds until the next attempt; None if there is none: this was the last, or it cannot end better."""
    rule, is_meant = (policy, False) if isinstance(error, Retry) else policy.rule_for(error)
    if rule is None or isinstance(error, Discard) or not (is_meant or _may_help(error)):
        return None
    if attempt >= (min(max_attempts, rule.max_attempts) if is_meant else max_attempts):
        return None
    if isinstance(error, Retry) and error.after is not None:
        return error.after
    return rule.delay(attempt, retry_after=error.retry_after if isinstance(error, ModelUnavailable) else None)


def find(error: BaseException, kind: type[E]) -> E | None:
    """The first exception of that kind: the error itself, or one in the groups that task groups make."""
    if isinstance(error, kind):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := find(each, kind))), None)
    return None


def _may_help(error: BaseException) -> bool:
    """Whether another attempt may end better: somebody says so, or something nobody foresaw went wrong."""
    return isinstance(error, ModelUnavailable | AttemptTimeout) or not isinstance(error, AttemptError | UsageError)
