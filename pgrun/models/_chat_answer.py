"""Reads a `ChatCompletion`: its text, what it calls, how it ended, what it cost; also from servers that leave things out."""

import json
import re
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pgrun.errors import AttemptError, ModelUnavailable
from pgrun.models._openai_failures import failure
from pgrun.models._openai_fields import given, reading, usage_of
from pgrun.models.base import ModelResponse, ToolCall

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion

# How models begin that think aloud, where the server does not take their thoughts out.
_THOUGHTS = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)


def answer_from(completion: "ChatCompletion") -> ModelResponse:
    """The answer in our words.

    Raises:
        AttemptError: The server reports a failure inside the answer, or sent something else.
    """
    with reading(completion, "a completion of the Chat Completions API"):
        return _read(completion)


def _read(completion: "ChatCompletion") -> ModelResponse:
    facts: dict[str, Any] = {
        "usage": usage_of(completion, "prompt", "completion"),
        "response_id": given(completion, "id"),
        "model": given(completion, "model"),
    }
    if error := _failure(completion):
        error.metrics = facts["usage"]
        raise error
    choice = completion.choices[0]
    message, reason = given(choice, "message"), given(choice, "finish_reason")
    text, refusal = _text(message), given(message, "refusal")
    if reason in ("length", "content_filter"):
        return ModelResponse(text, "truncated" if reason == "length" else "filtered", **facts)
    if message is None:
        raise TypeError("no message")
    if refusal:
        return ModelResponse(text, "refused", refusal=refusal, **facts)
    return ModelResponse(text, calls=_calls(message), **facts)


def _failure(completion: "ChatCompletion") -> AttemptError | None:
    """What gateways write into an answer of status 200 when the server behind them fails."""
    choice = (given(completion, "choices") or [None])[0]
    error = given(completion, "error") or given(choice, "error")
    if error is None and given(choice, "finish_reason") != "error":
        return None
    code = str(error.get("code")) if isinstance(error, dict) else ""
    if code.isdecimal() and int(code) >= 400:
        return failure(int(code), "the provider", str(error.get("message")))
    return ModelUnavailable(f"the provider failed: {error or 'no reason given'!s:.1000}", code="error")


def _text(message: Any) -> str:
    """What is said, in one text or in parts, some of which may be thoughts."""
    content = given(message, "content")
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    thoughts = _THOUGHTS.match(content or "")
    return content[thoughts.end() :] if thoughts else content or ""


def _calls(message: Any) -> tuple[ToolCall, ...]:
    return tuple(map(_call, given(message, "tool_calls") or ()))


def _call(call: Any) -> ToolCall:
    """A call; `TypeError` for one without a name. One without an id gets one, under which its result goes back."""
    name, arguments = call.function.name, given(call, "function", "arguments")
    if not isinstance(name, str):
        raise TypeError("a call without its name")
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments, ensure_ascii=False)
    # Nine letters or digits, because some models' templates take nothing else.
    return ToolCall(str(given(call, "id") or uuid4().hex[:9]), name, arguments or "")
