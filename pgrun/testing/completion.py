"""The chat completion, in the provider's shape as the real client parses it, and the chunks it is streamed in."""

import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from pgrun.testing.answers import Reply, ToolCall, Usage
from pgrun.testing.request import ModelRequest
from pgrun.testing.stream import pieces
from pgrun.testing.work import Step

_FINISHED = {"truncated": "length", "filtered": "content_filter"}  # the rest is "stop" or "tool_calls"


def completion_body(reply: Reply, request: ModelRequest, usage: Usage) -> dict[str, Any]:
    """The chat.completion object for a reply that costs `usage`."""
    reason = _FINISHED.get(reply.ending, "tool_calls" if reply.calls else "stop")
    return {
        "id": f"chatcmpl-{uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.model,
        "choices": [{"index": 0, "message": _message(reply), "logprobs": None, "finish_reason": reason}],
        "usage": _usage(usage),
        "service_tier": "default",
        "system_fingerprint": None,
    }


def chunks(body: dict[str, Any], deltas: int, *, with_usage: bool) -> list[Step]:
    """The steps that lead to a chat.completion object; `with_usage` adds a chunk that says what it cost."""
    (choice,) = body["choices"]
    shared = {**body, "object": "chat.completion.chunk"}
    usage = shared.pop("usage")
    if with_usage:
        shared["usage"] = None

    def step(delta: dict[str, Any], size: int = 0, reason: str | None = None) -> Step:
        part = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return Step({**shared, "choices": [part]}, size, final=reason is not None and not with_usage)

    steps = [step(delta, size) for delta, size in _deltas(choice["message"], deltas)]
    steps.append(step({}, reason=choice["finish_reason"]))
    if with_usage:
        steps.append(Step({**shared, "choices": [], "usage": usage}, final=True))
    return steps


def _message(reply: Reply) -> dict[str, Any]:
    refused = reply.ending == "refused"
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if refused or (reply.calls and not reply.text) else reply.text,
        "refusal": reply.text if refused else None,
        "annotations": [],
    }
    return message | ({"tool_calls": [_tool_call(call) for call in reply.calls]} if reply.calls else {})


def _tool_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.call_id or f"call_{uuid4().hex}", "type": "function", "function": function}


def _deltas(message: dict[str, Any], wanted: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Each delta of a message, and how many characters the model writes for it."""
    yield {"role": "assistant", "content": None if message["content"] is None else "", "refusal": None}, 0
    for kind in ("content", "refusal"):
        for piece in pieces(message[kind] or "", wanted):
            yield {kind: piece}, len(piece)
    for at, call in enumerate(message.get("tool_calls", [])):
        yield {"tool_calls": [{**call, "index": at, "function": {**call["function"], "arguments": ""}}]}, 0
        for piece in pieces(call["function"]["arguments"], wanted):
            yield {"tool_calls": [{"index": at, "function": {"arguments": piece}}]}, len(piece)


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
