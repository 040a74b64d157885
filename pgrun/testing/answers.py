"""What a model server can answer: small values that a test writes down and `script` hands to the next call.

::

    Answer
    ├── Worked            the model works on the call, and what it produces is paid for
    │   ├── Reply         this text or these tool calls, however it ended: reply, refusal, truncated, filtered, failed
    │   ├── Generated     made up for the schema the call asks for; also on purpose in the wrong shape
    │   └── Hang          no output until the client goes or the test releases it
    ├── HttpError         an error status with the provider's error body
    └── Disconnect        the connection is closed without an answer, before any model has seen the call

Tests use the functions, here and in `faults`; the classes are what those return.
"""

import json
from collections.abc import Callable, Mapping, Sequence
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


@dataclass(frozen=True)
class ToolCall:
    """A function the model wants called.

    Attributes:
        name: One of the functions that the call offers.
        arguments: JSON, as the model writes it; a test may write broken JSON on purpose.
        call_id: What the function's output has to refer to, or None for an id made up for each answer.
    """

    name: str
    arguments: str = "{}"
    call_id: str | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class Answer:
    """What one call gets.

    Attributes:
        delay: Seconds between the request and this answer's first output, or None for the server's own `delay`.
    """

    delay: float | None = None

    def __repr__(self) -> str:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        unset = {item.name: item.default for item in fields(self)} | {"headers": {}}
        shown = [f"{name}={value!r}" for name, value in values.items() if value != unset[name]]
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True)
class Cut:
    """Where the connection is cut although the model works; see `faults.cut`."""

    after_events: int | None = None
    clean: bool = False
    error: "HttpError | None" = None


@dataclass(frozen=True, kw_only=True, repr=False)
class Worked(Answer):
    """What the model works on; the call is paid for from then on.

    Attributes:
        deltas: Into how many deltas each text of it is cut, fewer where the text is shorter than that.
        interval: Seconds the model takes for each delta after the first, or None for the server's own `interval`.
        cut: Where the client's connection breaks, if it does.
    """

    deltas: int = 8
    interval: float | None = None
    cut: Cut | None = None


@dataclass(frozen=True, repr=False)
class Reply(Worked):
    """An answer that the test has written.

    Attributes:
        text: The answer, the refusal, or what came before the cut; for "failed" the error's message.
        ending: How the response ended.
        code: The error's code, for "failed" only.
        usage: Token counts to report, or None for an estimate from the lengths.
        calls: Tools the model calls, after the text if there is one.
    """

    text: str
    ending: Ending = "completed"
    code: str | None = None
    usage: Usage | None = None
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, repr=False)
class Generated(Worked):
    """An answer made up for what the call asks.

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
class Hang(Worked):
    """No output until the client disconnects or the test calls `ModelServer.release`.

    Attributes:
        silent: Not even a status line or the first events of a stream, which come at once else.
        queued: In background mode: the provider has not begun with it.
    """

    silent: bool = False
    queued: bool = False


@dataclass(frozen=True, repr=False)
class Disconnect(Answer):
    """The connection is closed without an answer, before any model has seen the call."""


Content: TypeAlias = "str | dict[str, Any] | list[Any] | BaseModel"
Scripted: TypeAlias = "Content | Answer | Callable[[dict[str, Any]], Content | Answer]"
"""What `ModelServer.script` takes; a function gets the request body and returns the answer to it."""


def reply(
    content: Content = "",
    *,
    calls: Sequence[ToolCall] = (),
    delay: float | None = None,
    usage: Usage | None = None,
    deltas: int = 8,
    interval: float | None = None,
) -> Reply:
    """A completed answer: a text (anything else is sent as JSON), tool calls, or both.

    Args:
        content: The text, or what becomes one.
        calls: What `tool_call` returns, one for each tool the model calls.
        delay: Seconds between the request and the first output, or None for the server's own `delay`.
        usage: Token counts to report, or None for an estimate from the lengths.
        deltas: Into how many pieces each text is cut where the call asks for a stream; at least 1.
        interval: Seconds the model takes for each piece after the first, streamed or not; None for the server's own.
    """
    pace: dict[str, Any] = {"delay": delay, "deltas": deltas, "interval": interval}
    return Reply(_text_of(content), usage=usage, calls=tuple(calls), **pace)


def tool_call(name: str, arguments: "Content | None" = None, *, call_id: str | None = None) -> ToolCall:
    """A call of the function `name` for `reply`; a text stands for the arguments as the model wrote them."""
    return ToolCall(name, "{}" if arguments is None else _text_of(arguments), call_id)


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
