"""Failures of the openai SDK and of the servers behind it, in our words: they say whether trying again can help."""

import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from pgrun.errors import AttemptError, ModelRejected, ModelUnavailable, QuotaExceeded

if TYPE_CHECKING:
    import openai


def translated(error: "openai.OpenAIError", base_url: str) -> AttemptError:
    """What the SDK raised, in our words."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return _from_status(error, base_url)
    if isinstance(error, openai.APIConnectionError):
        return ModelUnavailable(f"no connection to {base_url}: {error.__cause__ or error}", code="connection")
    return ModelUnavailable(f"{base_url}: {error}")


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
