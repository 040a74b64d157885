"""The openai SDK at arm's length: imported at the first call, one client per account and event loop, errors in our words."""

import os
import re
import threading
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import current_token

from pgrun.errors import ModelUnavailable, QuotaExceeded
from pgrun.models import _prices
from pgrun.models._openai_failures import translated

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletion
    from openai.types.responses import Response

T = TypeVar("T")

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


async def create_response(account: Account, body: dict[str, Any], *, timeout: float) -> "Response":
    """One ``responses.create`` without retries, within `timeout` seconds in all; what fails is an `AttemptError`."""
    return await _create(account, lambda client: client.responses.create(**body, timeout=timeout), timeout)


async def create_completion(account: Account, body: dict[str, Any], *, timeout: float) -> "ChatCompletion":
    """One ``chat.completions.create``, in the same way."""
    return await _create(account, lambda client: client.chat.completions.create(**body, timeout=timeout), timeout)


async def preload() -> None:
    """Imports the SDK now, so that the first call does not pay the half second it takes."""
    await anyio.to_thread.run_sync(_import)


async def _create(account: Account, call: "Callable[[openai.AsyncOpenAI], Awaitable[T]]", timeout: float) -> T:
    client = await _client(account)
    import openai

    try:
        with anyio.fail_after(timeout):
            return await call(client)
    except TimeoutError:
        raise ModelUnavailable(f"no answer from {client.base_url} within {timeout:g} s", code="timeout") from None
    except openai.OpenAIError as error:
        raise translated(error, str(client.base_url)) from error
    except ValueError as error:  # the body is not the JSON it claims to be; the SDK lets json's error through
        raise ModelUnavailable(
            f"{client.base_url} sent an answer that cannot be read: {error}", code="unreadable"
        ) from error


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
    client.responses.create, client.chat.completions.create  # noqa: B018  loads the types they need
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
