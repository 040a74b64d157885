"""The Response object, in the provider's shape as the real client parses it: what a call of the Responses API gets."""

import json
import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from pgrun.testing.answers import HttpError, Reply, ToolCall, Usage
from pgrun.testing.request import ModelRequest

_CHARACTERS_PER_TOKEN = 4

_STATUS = {"completed": "completed", "refused": "completed", "failed": "failed"}  # the rest is "incomplete"
_REASON = {"truncated": "max_output_tokens", "filtered": "content_filter"}
# What the provider repeats from the request, and what it says where the request is silent.
_ECHOED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def error_body(error: HttpError) -> dict[str, Any]:
    """The provider's body for an error status."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def response_body(reply: Reply, request: ModelRequest, usage: Usage | None, *, background: bool) -> dict[str, Any]:
    """The finished Response object for a reply that costs `usage`."""
    now = int(time.time())
    echoed = {**_ECHOED, **{name: value for name, value in request.body.items() if name in _ECHOED}}
    return {
        **echoed,
        "id": f"resp_{uuid4().hex}",
        "object": "response",
        "created_at": now,
        "completed_at": now if _STATUS.get(reply.ending) == "completed" else None,
        "status": _STATUS.get(reply.ending, "incomplete"),
        "background": background,
        "error": {"code": reply.code, "message": reply.text} if reply.ending == "failed" else None,
        "incomplete_details": {"reason": _REASON[reply.ending]} if reply.ending in _REASON else None,
        "model": request.model,
        "output": [] if reply.ending == "failed" else _output(reply),
        "service_tier": "default",
        "usage": None if usage is None else usage_body(usage),
    }


def usage_of(reply: Reply, request: ModelRequest, context: int = 0) -> Usage | None:
    """What a reply costs: as scripted, else estimated; `context` tokens come from the responses before this one.

    A response that fails costs nothing unless a test says so.
    """
    if reply.usage is not None or reply.ending == "failed":
        return reply.usage
    written = len(reply.text) + sum(len(call.name) + len(call.arguments) for call in reply.calls)
    return Usage(context + input_tokens(request), max(1, written // _CHARACTERS_PER_TOKEN))


def input_tokens(request: ModelRequest) -> int:
    """How many tokens the model has to read for this request, by the lengths of its texts."""
    # The schema and the tools are read by the model like the prompt, and billed like it.
    declared = [value for value in (request.schema, request.body.get("tools")) if value]
    asked = sum(map(len, request.texts)) + sum(len(json.dumps(value)) for value in declared)
    return max(1, asked // _CHARACTERS_PER_TOKEN)


def _output(reply: Reply) -> list[dict[str, Any]]:
    status = _STATUS.get(reply.ending, "incomplete")
    messages = [_message(reply, status)] if reply.text or not reply.calls else []
    return [*messages, *(_function_call(call, status) for call in reply.calls)]


def _message(reply: Reply, status: str) -> dict[str, Any]:
    if reply.ending == "refused":
        part: dict[str, Any] = {"type": "refusal", "refusal": reply.text}
    else:
        part = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
    return {"id": f"msg_{uuid4().hex}", "type": "message", "role": "assistant", "status": status, "content": [part]}


def _function_call(call: ToolCall, status: str) -> dict[str, Any]:
    return {
        "id": f"fc_{uuid4().hex}",
        "type": "function_call",
        "status": status,
        "call_id": call.call_id or f"call_{uuid4().hex}",
        "name": call.name,
        "arguments": call.arguments,
    }


def usage_body(usage: Usage) -> dict[str, Any]:
    """What an answer has cost, as its object says it."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
