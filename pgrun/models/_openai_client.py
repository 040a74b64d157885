"""The openai SDK at arm's length: imported at the first call, one client per account and event loop, errors in our words."""

import os
import re
import time
import weakref
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from anyio.lowlevel import current_token

from pgrun.errors import AttemptError, ModelRejected, ModelUnavailable, QuotaExceeded

if TYPE_CHECKING:
    import openai
    from openai.types.responses import Response


NO_KEY = "none"
"""The key for servers that must not get ours; those that ask for none accept it."""

_SENDABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Account:
    """Whom we are at which server; what is None comes from the SDK's environment variables."""

    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    organization: str | None = None


_clients: weakref.WeakKeyDictionary[Any, dict[Account, "openai.AsyncOpenAI"]] = weakref.WeakKeyDictionary()


async def create(account: Account, body: dict[str, Any], *, timeout: float) -> "Response":
    """One ``responses.create`` without retries, within `timeout` seconds in all; what fails is an `AttemptError`."""
    client = await _client(account)
    import openai

    try:
        with anyio.fail_after(timeout):
            response: Response = await client.responses.create(**body, timeout=timeout)
            return response
    except TimeoutError:
        raise ModelUnavailable(f"no answer from {client.base_url} within {timeout:g} s", code="timeout") from None
    except openai.OpenAIError as error:
        raise _translated(error, str(client.base_url)) from error
    except ValueError as error:  # the body is not the JSON it claims to be; the SDK lets json's error through
        raise ModelUnavailable(
            f"{client.base_url} sent an answer that cannot be read: {error}", code="unreadable"
        ) from error


async def preload() -> None:
    """Imports the SDK now, so that the first call does not pay the half second it takes."""
    await anyio.to_thread.run_sync(_import)


async def _client(account: Account) -> "openai.AsyncOpenAI":
    clients = _clients.setdefault(current_token().native_token, {})
    if account not in clients:
        # In a thread: import and first use take 0.6 s, for which the event loop would stand still.
        made = await anyio.to_thread.run_sync(_make_client, account)
        clients.setdefault(account, made)
    return clients[account]


def _make_client(account: Account) -> "openai.AsyncOpenAI":
    import openai

    try:
        client = openai.AsyncOpenAI(
            api_key=account.api_key,
            base_url=account.base_url,
            organization=account.organization,
            max_retries=0,
            default_headers=_headers_for_strangers() if account.api_key == NO_KEY else None,
        )
    except openai.OpenAIError as error:
        raise QuotaExceeded(
            "no API key here: set OPENAI_API_KEY where the worker runs, or pass api_key= to the model",
            code="no_api_key",
        ) from error
    if not _SENDABLE.fullmatch(client.api_key):  # the SDK's own error would repeat it, and errors are stored
        raise QuotaExceeded(
            "the API key here is not one: it is empty, or has a space, line break or other character no key has",
            code="invalid_api_key",
        )
    client.responses.create  # noqa: B018  loads the types it needs
    return client


def _headers_for_strangers() -> dict[str, Any]:
    """Keeps back what the SDK adds to every request from ``$OPENAI_CUSTOM_HEADERS``, often another key."""
    import openai

    names = [line.partition(":")[0].strip() for line in os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")]
    hidden = {name: openai.Omit() for name in names if name.lower() != "authorization"}
    return {**hidden, "Authorization": f"Bearer {NO_KEY}"}


def _import() -> None:
    import openai
    import openai.resources.responses

    assert openai


def _translated(error: "openai.OpenAIError", base_url: str) -> AttemptError:
    import openai

    if isinstance(error, openai.APIStatusError):
        return _from_status(error, base_url)
    if isinstance(error, openai.APIConnectionError):
        return ModelUnavailable(f"no connection to {base_url}: {error.__cause__ or error}", code="connection")
    return ModelUnavailable(f"{base_url}: {error}")


def _from_status(error: "openai.APIStatusError", base_url: str) -> AttemptError:
    words = _words(error)
    facts = {"status_code": error.status_code, "code": error.code, "request_id": error.request_id}
    if "insufficient_quota" in (error.code, error.type):
        return QuotaExceeded(f"the account at {base_url} has no credit left: {words}", **facts)
    if error.status_code == 401:
        return QuotaExceeded(f"{base_url} does not accept the API key: {words}", **facts)
    if error.status_code in (408, 409, 429) or error.status_code >= 500:
        retry_after = _retry_after(error.response.headers)
        return ModelUnavailable(f"HTTP {error.status_code} from {base_url}: {words}", retry_after=retry_after, **facts)
    return ModelRejected(f"HTTP {error.status_code} from {base_url}: {words}", param=error.param, **facts)


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
