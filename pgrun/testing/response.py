"""What goes over the wire: `endpoint` gets the status, the headers and the JSON body of each answer here.

A body is a whole Response object in the provider's shape, as the real client parses it; whoever adds streaming can cut
its events out of this same object.
"""

import json
import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from pgrun.testing.answers import Answer, Generated, HttpError, Reply, Usage
from pgrun.testing.generate import generate, misshape
from pgrun.testing.request import ModelRequest
from pgrun.testing.wording import made_up_sentence

_CHARACTERS_PER_TOKEN = 4
_REQUEST_LIMIT = 10_000
_TOKEN_LIMIT = 2_000_000

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


def response_body(answer: Answer, request: ModelRequest) -> dict[str, Any]:
    """The Response object for an answer; what is neither Reply nor Generated is made up as if nothing was scripted.

    Raises:
        CannotGenerate: The schema asked for is beyond what can be made up.
    """
    reply = answer if isinstance(answer, Reply) else Reply(_made_up(answer, request))
    now = int(time.time())
    echoed = {**_ECHOED, **{name: value for name, value in request.body.items() if name in _ECHOED}}
    return {
        **echoed,
        "id": f"resp_{uuid4().hex}",
        "object": "response",
        "created_at": now,
        "completed_at": now if _STATUS.get(reply.ending) == "completed" else None,
        "status": _STATUS.get(reply.ending, "incomplete"),
        "background": False,
        "error": {"code": reply.code, "message": reply.text} if reply.ending == "failed" else None,
        "incomplete_details": {"reason": _REASON[reply.ending]} if reply.ending in _REASON else None,
        "model": request.model,
        "output": [] if reply.ending == "failed" else [_message(reply)],
        "service_tier": "default",
        "usage": None if reply.ending == "failed" else _usage(reply.usage or _estimate(reply, request)),
    }


def headers(number: int, extra: Mapping[str, str]) -> dict[str, str]:
    """The provider's headers for the answer to call `number`, with `extra` over them."""
    usual = {
        "x-request-id": f"req_{uuid4().hex}",
        "x-ratelimit-limit-requests": str(_REQUEST_LIMIT),
        "x-ratelimit-limit-tokens": str(_TOKEN_LIMIT),
        "x-ratelimit-remaining-requests": str(max(0, _REQUEST_LIMIT - number)),
        "x-ratelimit-remaining-tokens": str(_TOKEN_LIMIT),
        "x-ratelimit-reset-requests": "6ms",
        "x-ratelimit-reset-tokens": "0s",
    }
    return usual | {name.lower(): value for name, value in extra.items()}


def _made_up(answer: Answer, request: ModelRequest) -> str:
    wrong = isinstance(answer, Generated) and not answer.valid
    if request.schema is None and request.output_format["type"] == "text" and not wrong:
        return made_up_sentence(request.user_text)
    schema = request.schema or {"type": "object", "properties": {"answer": {"type": "string"}}}
    value = generate(schema, request.user_text)
    return json.dumps(misshape(value) if wrong else value, ensure_ascii=False)


def _message(reply: Reply) -> dict[str, Any]:
    if reply.ending == "refused":
        part: dict[str, Any] = {"type": "refusal", "refusal": reply.text}
    else:
        part = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
    status = _STATUS.get(reply.ending, "incomplete")
    return {"id": f"msg_{uuid4().hex}", "type": "message", "role": "assistant", "status": status, "content": [part]}


def _estimate(reply: Reply, request: ModelRequest) -> Usage:
    # The schema is read by the model like the prompt, and billed like it.
    asked = sum(map(len, request.texts)) + (len(json.dumps(request.schema)) if request.schema else 0)
    return Usage(max(1, asked // _CHARACTERS_PER_TOKEN), max(1, len(reply.text) // _CHARACTERS_PER_TOKEN))


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
