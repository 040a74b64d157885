"""Rate limits: how many requests and tokens each model may get, told in the headers of every answer.

Both are refilled continuously, as the provider does it: a limit of 60 a minute lets one more through each second.
"""

import time
from dataclasses import dataclass

from pgrun.testing.answers import HttpError


@dataclass(frozen=True)
class Limits:
    """What each model may get.

    Attributes:
        requests: Calls in a window.
        tokens: Input and output tokens in a window.
        window: Seconds.
    """

    requests: int = 10_000
    tokens: int = 2_000_000
    window: float = 60.0


class Meter:
    """Counts what each model has got.

    Args:
        limits: What is refused from then on, or None to tell the usual limits and refuse nothing.
    """

    def __init__(self, limits: Limits | None) -> None:
        self._enforced = limits is not None
        self._limits = limits or Limits()
        self._buckets: dict[str, dict[str, _Bucket]] = {}

    def admit(self, model: str, tokens: int) -> HttpError | None:
        """Count a call that needs `tokens` at least, or return the refusal, which is not counted."""
        needed = {"requests": 1, "tokens": tokens}
        if self._enforced:
            for kind, bucket in self._of(model).items():
                if wait := bucket.wait_for(needed[kind]):
                    return _exceeded(model, kind, bucket, needed[kind], wait)
        for kind, bucket in self._of(model).items():
            bucket.take(needed[kind])
        return None

    def charge(self, model: str, tokens: int) -> None:
        """Count tokens beyond those a call was admitted with; what is overdrawn has to be refilled first."""
        self._of(model)["tokens"].take(tokens)

    def headers(self, model: str) -> dict[str, str]:
        """What the provider tells about the limits with each answer."""
        told: dict[str, str] = {}
        for kind, bucket in self._of(model).items():
            told[f"x-ratelimit-limit-{kind}"] = str(bucket.limit)
            told[f"x-ratelimit-remaining-{kind}"] = str(max(0, int(bucket.level)))
            told[f"x-ratelimit-reset-{kind}"] = duration(bucket.wait_for(bucket.limit))
        return told

    def _of(self, model: str) -> "dict[str, _Bucket]":
        if model not in self._buckets:
            limits = {"requests": self._limits.requests, "tokens": self._limits.tokens}
            self._buckets[model] = {kind: _Bucket(limit, self._limits.window) for kind, limit in limits.items()}
        return self._buckets[model]


class _Bucket:
    """Full with `limit`, and as much flows in during each window."""

    def __init__(self, limit: int, window: float) -> None:
        self.limit = limit
        self._rate = limit / window
        self._level = float(limit)
        self._at = time.monotonic()

    @property
    def level(self) -> float:
        """What is there now."""
        now = time.monotonic()
        self._level = min(self.limit, self._level + (now - self._at) * self._rate)
        self._at = now
        return self._level

    def take(self, amount: int) -> None:
        """Take this much, whether it is there or not."""
        self._level = self.level - amount

    def wait_for(self, amount: int) -> float:
        """Seconds until this much is there, 0 if it is, infinity if it never will be."""
        if amount > self.limit:
            return float("inf")
        return max(0.0, amount - self.level) / self._rate if self._rate else 0.0


def duration(seconds: float) -> str:
    """Seconds as the provider writes them: 20ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"


def _exceeded(model: str, kind: str, bucket: _Bucket, needed: int, wait: float) -> HttpError:
    unit = {"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)"}[kind]
    place = f"{model} in organization org-test on {unit}: Limit {bucket.limit}"
    if wait == float("inf"):
        message = f"Request too large for {place}, Requested {needed}."
        return HttpError(429, message, kind, "rate_limit_exceeded", delay=0)
    used = bucket.limit - max(0, int(bucket.level))
    message = f"Rate limit reached for {place}, Used {used}, Requested {needed}. Please try again in {duration(wait)}."
    # Rounded up: who waits as long as he is told gets through.
    headers = {"retry-after": f"{int(wait) + 1}", "retry-after-ms": f"{int(wait * 1000) + 1}"}
    return HttpError(429, message, kind, "rate_limit_exceeded", headers=headers, delay=0)
