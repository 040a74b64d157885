"""When to try again: the rule by which a worker turns a failed attempt into the moment of the next one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from pgrun._jitter import uniform
from pgrun.errors import UsageError

Ambiguous = Literal["retry", "fail"]


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and how long apart the attempts of a run are; it is stored with the run.

    The n-th retry waits ``base_delay * 2**(n-1)`` seconds, at most `max_delay`, give or take `jitter`; but never less than
    the provider's Retry-After.
    """

    max_attempts: int = 5
    """Attempts in all, the first included."""
    base_delay: float = 1.0
    """Seconds before the first retry."""
    max_delay: float = 300.0
    """Longest wait in seconds that the doubling reaches; a longer Retry-After is honoured all the same."""
    jitter: float = 0.25
    """Share of the delay by which it is varied at random, so that runs that failed together do not return together."""
    ambiguous: Ambiguous = "retry"
    """What follows if nobody can know whether a call of the model was answered: its worker died, or its connection broke, before
    its id was known, or the provider does not find the id any more. `retry`: it is made again, so at most one answer is paid for
    twice. `fail`: the run ends in `ModelCallLost`; this costs one statement more per call, which says that it begins. With a
    provider's background mode the window is the time until its first word, without it the whole call."""

    errors: Mapping[type[BaseException], "RetryPolicy | None"] = field(default_factory=dict, hash=False)
    """Other rules for some exceptions and those derived from them, the closest counts: None for no retry at all, or a policy with
    delays and `max_attempts` of its own, which may be fewer than the run has. Of tasks only, since a class cannot be stored."""

    def __post_init__(self) -> None:
        if not isinstance(self.max_attempts, int) or not 1 <= self.max_attempts <= 32767:
            raise UsageError(f"RetryPolicy.max_attempts is {self.max_attempts!r}; a run has 1 to 32767 attempts")
        if not (self.base_delay >= 0 and self.max_delay >= 0 and 0 <= self.jitter <= 1):
            raise UsageError(
                "RetryPolicy: base_delay and max_delay are seconds >= 0, jitter is a share between 0 and 1"
            )
        if self.ambiguous not in get_args(Ambiguous):
            raise UsageError(f"RetryPolicy.ambiguous is {self.ambiguous!r}; it is retry or fail")
        for kind, rule in self.errors.items():
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise UsageError(f"RetryPolicy.errors: {kind!r} is no class of exceptions")
            if not (rule is None or isinstance(rule, RetryPolicy)) or (rule and rule.errors):
                raise UsageError(f"RetryPolicy.errors: {rule!r} is neither None nor a RetryPolicy without errors=")

    def rule_for(self, error: BaseException) -> "tuple[RetryPolicy | None, bool]":
        """The policy after this exception, None for no retry, and whether `errors` says so."""
        for kind in type(error).__mro__:
            if kind in self.errors:
                return self.errors[kind], True
        return self, False

    def delay(self, attempt: int, *, retry_after: float | None = None) -> float:
        """Seconds to wait after the given attempt (counted from 1) has failed."""
        doubled = self.base_delay * 2.0 ** min(attempt - 1, 60)
        spread = min(doubled, self.max_delay) * (1 + uniform(-self.jitter, self.jitter))
        # Jitter goes on top of Retry-After too: everyone was told the same second.
        return max(spread, (retry_after or 0.0) * (1 + uniform(0, self.jitter)))
