"""The openai SDK at arm's length: imported at the first call, one client per account and event loop, errors in our words."""

import logging
import os
import re
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from anyio.lowlevel import current_token

from pgrun.errors import ModelUnavailable, QuotaExceeded
from pgrun.models import _prices
from pgrun.models._openai_failures import translated, uncertain

if TYPE_CHECKING:
    import openai

_log = logging.getLogger("pgrun.models")

NO_KEY = "none"
"""The key for servers that must not get ours; those that ask for none accept it."""

_SENDABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Account:
    """Whom we are at which server; what is None comes from the SDK's environment variables."""

    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    organization: str | None = None


@dataclass(frozen=True, eq=False)
class Endpoint:
    """A server, and what it has turned out not to have: a feature, by the model it was asked for with."""

    client: "openai.AsyncOpenAI"
    lacks: set[tuple[str, str]] = field(default_factory=set)

    @property
    def base_url(self) -> str:
        """Where it is."""
        return str(self.client.base_url)

    def note_lack(self, model: str, feature: str) -> None:
        """Remembers that it need not be asked for this feature again, and says so once."""
        if (model, feature) not in self.lacks:
            self.lacks.add((model, feature))
            _log.info("%s has no %s for %s: calls are made without", self.base_url, feature, model)


_endpoints: weakref.WeakKeyDictionary[Any, dict[Account, Endpoint]] = weakref.WeakKeyDictionary()


async def preload() -> None:
    """Imports the SDK now, so that the first call does not pay the half second it takes."""
    await anyio.to_thread.run_sync(_import)


async def endpoint_of(account: Account) -> Endpoint:
    """The server of an account, as this event loop knows it.

    Raises:
        QuotaExceeded: There is no key here, or none that could be sent.
    """
    endpoints = _endpoints.setdefault(current_token().native_token, {})
    if account not in endpoints:
        # In a thread: import and first use take 0.6 s, for which the event loop would stand still.
        made = await anyio.to_thread.run_sync(_make_client, account)
        endpoints.setdefault(account, Endpoint(made))
    return endpoints[account]


@contextmanager
def in_our_words(endpoint: Endpoint) -> Iterator[None]:
    """Makes an `AttemptError` of whatever the SDK raises in its block."""
    import httpx2
    import openai

    try:
        yield
    except openai.OpenAIError as error:
        raise translated(error, endpoint.base_url) from error
    except httpx2.HTTPError as error:  # in the middle of a whole answer to a request for a stream
        raise uncertain(ModelUnavailable(f"{endpoint.base_url}: {error}", code="connection")) from error
    except ValueError as error:  # the body is not the JSON it claims to be; the SDK lets json's error through
        words = f"{endpoint.base_url} sent an answer that cannot be read: {error}"
        raise uncertain(ModelUnavailable(words, code="unreadable")) from error


def too_late(endpoint: Endpoint, timeout: float) -> ModelUnavailable:
    """That there was no answer in time."""
    return ModelUnavailable(f"no answer from {endpoint.base_url} within {timeout:g} s", code="timeout")


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
    client.responses.with_raw_response, client.chat.completions.with_raw_response  # noqa: B018  loads the types they need
    # The first answer will be priced in a second or so; the first request need not wait for the lists.
    threading.Thread(target=_prices.preload, name="pgrun-prices", daemon=True).start()
    return client


def _headers_for_strangers() -> dict[str, Any]:
    """Keeps back what the SDK adds to every request from ``$OPENAI_CUSTOM_HEADERS``, often another key."""
    import openai

    names = [line.partition(":")[0].strip() for line in os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")]
    hidden = {name: openai.Omit() for name in names if name.lower() != "authorization"}
    return {**hidden, "Authorization": f"Bearer {NO_KEY}"}


def _import() -> None:
    import openai
    import openai.resources.chat
    import openai.resources.responses

    assert openai
    _prices.preload()
