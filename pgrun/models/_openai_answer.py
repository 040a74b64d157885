"""Reads a `Response` of the Responses API: its text, what it calls, how it ended, what it cost."""

from typing import TYPE_CHECKING, Any

from pgrun.errors import AttemptError, ModelRejected, ModelUnavailable, QuotaExceeded
from pgrun.models._openai_fields import given, reading, usage_of
from pgrun.models.base import ModelResponse, ToolCall

if TYPE_CHECKING:
    from openai.types.responses import Response

# Error codes of a failed response that another attempt may get past, like one without a code; the others say that the
# request is at fault.
_PASSING_CODES = ("server_error", "rate_limit_exceeded", "vector_store_timeout")


def response_from(response: "Response") -> ModelResponse:
    """The answer in our words.

    Raises:
        AttemptError: The provider reports that the response failed; `metrics` has what it used all the same.
    """
    with reading(response, "a response of the Responses API"):
        return _read(response)


def _read(response: "Response") -> ModelResponse:
    usage = usage_of(response, "input", "output")
    if response.status not in ("completed", "incomplete", None):
        error = _failure(response)
        error.metrics = usage
        raise error
    text, refusal = _parts(response)
    facts: dict[str, Any] = {"usage": usage, "response_id": given(response, "id"), "model": given(response, "model")}
    if response.status == "incomplete":
        reason = given(response, "incomplete_details", "reason")
        return ModelResponse(text, "filtered" if reason == "content_filter" else "truncated", **facts)
    if refusal:
        return ModelResponse(text, "refused", refusal=refusal, **facts)
    if calls := _calls(response):
        return ModelResponse(text, calls=calls, items=_items(response), **facts)
    return ModelResponse(text, **facts)


def _parts(response: "Response") -> tuple[str, str]:
    """Text and refusal of the final answer; commentary that a model gives on its way is not part of it."""
    text, refusal = [], []
    for item in response.output:
        if item.type != "message" or getattr(item, "phase", None) not in (None, "final_answer"):
            continue
        for part in item.content:
            if part.type == "output_text":
                text.append(part.text)
            else:
                refusal.append(part.refusal)
    return "".join(text), "".join(refusal)


def _calls(response: "Response") -> tuple[ToolCall, ...]:
    """The calls it asks for; `TypeError` for one that cannot be answered."""
    calls = [item for item in response.output if item.type == "function_call"]
    for item in calls:
        if not isinstance(item.call_id, str) or not isinstance(item.name, str):
            raise TypeError("a call without its id or name")
    return tuple(ToolCall(item.call_id, item.name, item.arguments or "") for item in calls)


def _items(response: "Response") -> tuple[dict[str, Any], ...]:
    """Everything it put out, thoughts and ids included, with nothing added that the server did not send."""
    return tuple(item.to_dict(mode="json", warnings=False) for item in response.output)


def _failure(response: "Response") -> AttemptError:
    code = given(response, "error", "code")
    words = given(response, "error", "message") or f"the response ended as {response.status}"
    facts: dict[str, Any] = {"code": code or response.status, "response_id": given(response, "id")}
    if "quota" in words.lower() and code == "rate_limit_exceeded":
        return QuotaExceeded(f"the account has no credit left: {words}", **facts)
    if code is None or code in _PASSING_CODES or response.status != "failed":
        return ModelUnavailable(f"the provider failed ({facts['code']}): {words}", **facts)
    return ModelRejected(f"the provider rejected the request ({code}): {words}", **facts)
