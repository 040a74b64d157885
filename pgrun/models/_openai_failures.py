"""Failures of the openai SDK and of the servers behind it, in our words: they say whether trying again can help."""

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pgrun.errors import AttemptError, ModelRejected, ModelUnavailable, QuotaExceeded

if TYPE_CHECKING:
    import openai


E = TypeVar("E", bound=AttemptError)

# Of the SDK's HTTP client: nothing of the request has left this machine.
_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol")


def translated(error: "openai.OpenAIError", base_url: str) -> AttemptError:
    """What the SDK raised, in our words."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return _from_status(error, base_url)
    if isinstance(error, openai.APIConnectionError):
        lost = ModelUnavailable(f"no connection to {base_url}: {error.__cause__ or error}", code="connection")
        return lost if type(error.__cause__).__name__ in _NOT_SENT else uncertain(lost)
    if isinstance(error, openai.APIError) and isinstance(error.body, dict):  # in the middle of a stream
        return told_in_stream(error.body, base_url)
    return uncertain(ModelUnavailable(f"{base_url}: {error}"))


def told_in_stream(error: Mapping[str, Any], where: str) -> AttemptError:
    """The failure that a stream ends with: `error` has the provider's code, type and message, as far as it gives them."""
    code, kind, words = (str(error.get(name) or "") for name in ("code", "type", "message"))
    if code.isdecimal() and int(code) >= 400:  # gateways hand on the status of the server behind them
        return uncertain(failure(int(code), where, words, kind=kind))
    if "insufficient_quota" in (code, kind):
        return uncertain(failure(429, where, words, code=code, kind=kind))
    return uncertain(ModelUnavailable(f"{where} broke off the answer: {words or code or kind}", code=code or "error"))


def names(error: ModelRejected, *words: str) -> bool:
    """Whether a request was not accepted because of something in it that has one of these words in its name, or is unknown."""
    if error.answer != "none" or error.details.get("status_code") not in (400, 422):
        return False
    said = f"{error.details.get('param')} {error}".lower()
    return any(word in said for word in (*words, "unknown parameter", "unrecognized", "extra inputs", "extra fields"))


def cannot_go_on(error: ModelRejected) -> bool:
    """Whether a request was not accepted because of the answer that it goes on from.

    That is not there, the server keeps none, or what led to it is longer by now than what the model can read.
    """
    said = f"{error.details.get('param')} {error.details.get('code')} {error}".lower()
    gone = error.details.get("status_code") == 404 or "previous" in said or names(error, "previous")
    return gone or "context_length_exceeded" in said


def uncertain(error: E) -> E:
    """The same, about a call of which nobody can say whether it was answered."""
    error.answer = "unknown"
    return error


def failure(
    status: int,
    where: str,
    words: str,
    *,
    code: str | None = None,
    kind: str | None = None,
    param: str | None = None,
    retry_after: float | None = None,
    request_id: str | None = None,
) -> AttemptError:
    """What an HTTP status means, wherever it was read; `kind` is the ``type`` of the provider's error."""
    facts = {"status_code": status, "code": code, "request_id": request_id}
    if "insufficient_quota" in (code, kind) or status == 402:
        return QuotaExceeded(f"the account at {where} has no credit left: {words}", **facts)
    if status == 401:
        return QuotaExceeded(f"{where} does not accept the API key: {words}", **facts)
    if status in (408, 409, 429) or status >= 500:
        return ModelUnavailable(f"HTTP {status} from {where}: {words}", retry_after=retry_after, **facts)
    return ModelRejected(f"HTTP {status} from {where}: {words}", param=param, **facts)


def _from_status(error: "openai.APIStatusError", base_url: str) -> AttemptError:
    return failure(
        error.status_code,
        base_url,
        _words(error),
        code=error.code,
        kind=error.type,
        param=error.param,
        retry_after=_retry_after(error.response.headers),
        request_id=error.request_id,
    )


def _words(error: "openai.APIStatusError") -> str:
    """The provider's own message; the SDK's repeats the whole body."""
    if isinstance(error.body, dict) and isinstance(error.body.get("message"), str):
        return str(error.body["message"])
    return error.message


def _retry_after(headers: Any) -> float | None:
    """Seconds from ``retry-after-ms`` or ``retry-after``, which is a number or a date (RFC 9110, 10.2.3); a day at most."""
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            seconds = float(milliseconds) / 1000
        elif (value := headers.get("retry-after")) is None:
            return None
        elif value.replace(".", "", 1).isdigit():
            seconds = float(value)
        else:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        return None
    return min(max(seconds, 0.0), 86_400.0)
