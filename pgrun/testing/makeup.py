"""What the model says: `desk` gets here the reply to a call, scripted or made up, within what the call allows."""

import json
from dataclasses import replace
from typing import Any

from pgrun.testing.answers import Generated, Reply, ToolCall, Worked
from pgrun.testing.generate import generate, misshape
from pgrun.testing.request import ModelRequest
from pgrun.testing.wording import made_up_sentence


class ImpossibleReply(Exception):
    """A test has scripted what no model can answer to this call."""


def reply_to(request: ModelRequest, answer: Worked) -> Reply:
    """What was scripted, or for anything but a `Reply` something made up as if nothing had been.

    Where the request wants one tool call at a time, the first of several is what the model makes.

    Raises:
        CannotGenerate: The schema asked for is beyond what can be made up.
        ImpossibleReply: The reply calls tools that the request keeps it from calling, or leaves out one it has to call.
    """
    reply = answer if isinstance(answer, Reply) else _made_up(answer, request)
    if not request.parallel:
        reply = replace(reply, calls=reply.calls[:1])
    if reply.ending == "completed":
        _check_calls(reply, request)
    return reply


def _check_calls(reply: Reply, request: ModelRequest) -> None:
    names = {call.name for call in reply.calls}
    if names and (request.tool_choice == "none" or not request.body.get("tools")):
        raise ImpossibleReply(f"it calls {', '.join(sorted(names))}, but the request has the model call no tools")
    if not names and request.tool_choice in ("required", "function"):
        raise ImpossibleReply(f"it calls no tool, but the request's tool_choice is {request.body['tool_choice']!r}")
    if request.chosen is not None and names != {request.chosen}:
        raise ImpossibleReply(f"it calls {', '.join(sorted(names))}, but the request's tool_choice is {request.chosen}")


def _made_up(answer: Worked, request: ModelRequest) -> Reply:
    wrong = isinstance(answer, Generated) and not answer.valid
    if request.tool_choice in ("required", "function") and request.functions:
        return _made_up_call(request, wrong)
    if request.schema is None and request.output_format["type"] == "text" and not wrong:
        return Reply(made_up_sentence(request.user_text))
    schema = request.schema or {"type": "object", "properties": {"answer": {"type": "string"}}}
    value = generate(schema, request.user_text)
    return Reply(_json(value, wrong))


def _made_up_call(request: ModelRequest, wrong: bool) -> Reply:
    function = next(each for each in request.functions if request.chosen in (None, each.name))
    arguments = generate(function.parameters or {"type": "object"}, request.user_text)
    return Reply("", calls=(ToolCall(function.name, _json(arguments, wrong)),))


def _json(value: Any, wrong: bool) -> str:
    return json.dumps(misshape(value) if wrong else value, ensure_ascii=False)
