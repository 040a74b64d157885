"""What can go wrong between a client and its provider: the answers a test scripts that are no answer of a model."""

from collections.abc import Mapping
from dataclasses import replace

from pgrun.errors import UsageError
from pgrun.testing.answers import Answer, Content, Cut, Disconnect, Hang, HttpError, Worked, as_answer


def http_error(
    status: int,
    *,
    code: str | None = None,
    message: str | None = None,
    headers: Mapping[str, str] | None = None,
    delay: float | None = None,
) -> HttpError:
    """Any error status, with the provider's error body."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    message = message or f"The model server was told to answer {status}."
    return HttpError(status, message, kind, code, headers=dict(headers or {}), delay=delay)


def rate_limited(retry_after: float = 1.0, *, delay: float | None = None) -> HttpError:
    """429 rate_limit_exceeded: come back in `retry_after` seconds."""
    headers = {
        "retry-after": f"{retry_after:g}",
        "retry-after-ms": f"{retry_after * 1000:.0f}",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": f"{retry_after:g}s",
    }
    message = f"Rate limit reached for requests. Please try again in {retry_after:g}s."
    return HttpError(429, message, "requests", "rate_limit_exceeded", headers=headers, delay=delay)


def quota_exceeded(*, delay: float | None = None) -> HttpError:
    """429 insufficient_quota: no call succeeds until a person pays; there is no Retry-After."""
    message = "You exceeded your current quota, please check your plan and billing details."
    return HttpError(429, message, "insufficient_quota", "insufficient_quota", delay=delay)


def server_error(status: int = 500, *, delay: float | None = None) -> HttpError:
    """The provider is in trouble: 500, or another 5xx."""
    message = "The server had an error while processing your request. Sorry about that!"
    return HttpError(status, message, "server_error", "server_error", delay=delay)


def unauthorized(*, delay: float | None = None) -> HttpError:
    """401 invalid_api_key."""
    return HttpError(401, "Incorrect API key provided.", code="invalid_api_key", delay=delay)


def hang(*, silent: bool = False, queued: bool = False, delay: float | None = None) -> Hang:
    """No output until the client disconnects or `ModelServer.release` is called; unpaid until then.

    Args:
        silent: Send not even a status line, so that the client of a background response does not learn its id either.
        queued: A background response has status queued until then.
        delay: Seconds before it begins to hang, or None for the server's own `delay`.
    """
    return Hang(silent=silent, queued=queued, delay=delay)


def disconnect(*, delay: float | None = None) -> Disconnect:
    """The connection drops after `delay` seconds, before any model has seen the call: nothing is paid."""
    return Disconnect(delay=delay)


def cut(
    answer: "Content | Answer",
    after_events: int | None = None,
    *,
    clean: bool = False,
    error: HttpError | None = None,
) -> Worked:
    """The connection breaks although the model works, so the call is paid for; what a client gets is not.

    A foreground call ends there, as it does when its client leaves. A background one goes on: its stream can be picked
    up again, and where the client did not get the id it cannot be found.

    Args:
        answer: What the model works on.
        after_events: How many events of the stream the client still gets; 0: not even a status line. None: all but the
            last one, so the model has done all its work. A call that does not stream gets no byte of its answer.
        clean: The stream ends as if it were whole, which is how a proxy cuts it; only its last event is missing.
        error: The stream ends with an error event that says this, for example `server_error()`.

    Raises:
        UsageError: `answer` is no answer of a model.
    """
    worked = as_answer(answer)
    if not isinstance(worked, Worked):
        raise UsageError(f"only what a model works on can be cut, not {worked!r}")
    return replace(worked, cut=Cut(after_events, clean, error))
