"""What a model server can answer: small values that a test writes down and `script` hands to the next call.

::

    Answer
    ├── Reply         a Response object with this text, however it ended: reply, refusal, truncated, filtered, failed
    ├── Generated     a Response object made up for the schema the call asks for; also on purpose in the wrong shape
    ├── HttpError     an error status with the provider's error body
    ├── Hang          no answer until the client goes or the test releases it
    └── Disconnect    the connection is closed without an answer

Tests use the functions; the classes are what those return.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pgrun.errors import UsageError

if TYPE_CHECKING:  # pydantic takes a while to import and is only named here
    from pydantic import BaseModel

Ending = Literal["completed", "refused", "truncated", "filtered", "failed"]
"""How a Response object ended, in the words of a test; `response` spells it as the provider does."""


@dataclass(frozen=True)
class Usage:
    """Token counts for one answer, as the provider would bill them."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, kw_only=True, repr=False)
class Answer:
    """What one call gets.

    Attributes:
        delay: Seconds between the request and this answer, or None for the server's own `delay`.
    """

    delay: float | None = None

    def __repr__(self) -> str:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        unset = {item.name: item.default for item in fields(self)} | {"headers": {}}
        shown = [f"{name}={value!r}" for name, value in values.items() if value != unset[name]]
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, repr=False)
class Reply(Answer):
    """A Response object whose text the test has written.

    Attributes:
        text: The answer, the refusal, or what came before the cut; for "failed" the error's message.
        ending: How the response ended.
        code: The error's code, for "failed" only.
        usage: Token counts to report, or None for an estimate from the lengths.
    """

    text: str
    ending: Ending = "completed"
    code: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True, repr=False)
class Generated(Answer):
    """A Response object made up for what the call asks.

    Attributes:
        valid: False for JSON that breaks the requested schema.
    """

    valid: bool = True


@dataclass(frozen=True, repr=False)
class HttpError(Answer):
    """An error status with the body the provider gives errors."""

    status: int
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Hang(Answer):
    """No answer until the client disconnects or the test calls `ModelServer.release`."""


@dataclass(frozen=True, repr=False)
class Disconnect(Answer):
    """The connection is closed without an answer."""


Content: TypeAlias = "str | dict[str, Any] | list[Any] | BaseModel"
Scripted: TypeAlias = "Content | Answer | Callable[[dict[str, Any]], Content | Answer]"
"""What `ModelServer.script` takes; a function gets the request body and returns the answer to it."""


def reply(content: Content, *, delay: float | None = None, usage: Usage | None = None) -> Reply:
    """A completed answer; anything but a text is sent as JSON."""
    return Reply(_text_of(content), usage=usage, delay=delay)


def refusal(text: str = "I'm sorry, I can't help with that.", *, delay: float | None = None) -> Reply:
    """The model declines: status completed, a content part of type refusal, no output text."""
    return Reply(text, "refused", delay=delay)


def truncated(text: str, *, delay: float | None = None) -> Reply:
    """The answer ends at the token limit: status incomplete, reason max_output_tokens."""
    return Reply(text, "truncated", delay=delay)


def filtered(text: str = "", *, delay: float | None = None) -> Reply:
    """The provider's filter cuts the answer: status incomplete, reason content_filter."""
    return Reply(text, "filtered", delay=delay)


def failed(
    code: str = "server_error", message: str = "The model failed to answer.", *, delay: float | None = None
) -> Reply:
    """The response fails although HTTP says 200: status failed with this error code, no usage."""
    return Reply(message, "failed", code, delay=delay)


def wrong_shape(*, delay: float | None = None) -> Generated:
    """JSON that breaks the requested schema: the right keys, every value of the wrong type."""
    return Generated(valid=False, delay=delay)


def invalid_json(text: str = "Sure! Here is what I found:", *, delay: float | None = None) -> Reply:
    """Prose where JSON was asked for."""
    return Reply(text, delay=delay)


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


def hang(*, delay: float | None = None) -> Hang:
    """No answer until the client disconnects or `ModelServer.release` is called."""
    return Hang(delay=delay)


def disconnect(*, delay: float | None = None) -> Disconnect:
    """The connection drops without an answer, after `delay` seconds."""
    return Disconnect(delay=delay)


def as_answer(value: "Content | Answer") -> Answer:
    """The answer that `value` stands for.

    Raises:
        UsageError: `value` is nothing that can be answered.
    """
    return value if isinstance(value, Answer) else Reply(_text_of(value))


def _text_of(content: Content) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, dict | list):
        return json.dumps(content, ensure_ascii=False)
    # Recognised by its method: importing pydantic only to ask would make `import pgrun.testing` slow.
    if hasattr(content, "model_dump_json") and not isinstance(content, type):
        return str(content.model_dump_json(by_alias=True))
    raise UsageError(
        f"a model server answers with a text, a dict, a list, a pydantic model or an Answer, not {content!r}"
    )
