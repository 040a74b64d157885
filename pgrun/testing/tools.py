"""Tools as the provider takes them: are they declared well, and does every output answer a call?

`responses` and `chat` ask here; each refusal is worded as the provider words it.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from pgrun.testing.request import Function, ModelRequest, RequestRejected, missing
from pgrun.testing.strictness import SchemaRejected, check_strict

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CHOICES = ("auto", "none", "required", "function")


def check_tools(request: ModelRequest) -> None:
    """Check what a request offers to call and what it says about calling.

    Raises:
        RequestRejected: The provider would not take it.
    """
    for at, tool in enumerate(request.body.get("tools") or []):
        if not isinstance(tool, dict) or not tool.get("type"):
            raise missing(f"tools[{at}].type")
    for function in request.functions:
        _check_function(function)
    _check_choice(request)


def check_outputs(items: Iterable[Mapping[str, Any]]) -> None:
    """Check that calls and outputs belong together in `items`, a whole conversation in its order.

    Raises:
        RequestRejected: An output answers no call, or a call has no output.
    """
    unanswered: dict[str, None] = {}
    known: set[str] = set()
    for item in items:
        call_id = str(item.get("call_id"))
        if item.get("type") == "function_call":
            known.add(call_id)
            unanswered[call_id] = None
        elif item.get("type") == "function_call_output":
            if call_id not in known:
                raise _unmatched(f"No tool call found for function call output with call_id {call_id}.")
            unanswered.pop(call_id, None)
    if unanswered:
        raise _unmatched(f"No tool output found for function call {next(iter(unanswered))}.")


def check_tool_messages(messages: Iterable[Mapping[str, Any]]) -> None:
    """Check that the tool messages of a chat follow the calls they answer, all of them before anything else is said.

    Raises:
        RequestRejected: One answers no call, or a call has no answer.
    """
    awaited: dict[str, None] = {}
    for message in messages:
        if message.get("role") != "tool":
            _check_answered(awaited)
            calls = message.get("tool_calls")
            awaited = {str(call.get("id")): None for call in calls} if _are_objects(calls) else {}
        elif str(message.get("tool_call_id")) in awaited:
            del awaited[str(message["tool_call_id"])]
        else:
            words = "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
            raise RequestRejected(f"Invalid parameter: {words}", param="messages")
    _check_answered(awaited)


def _are_objects(value: object) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _check_answered(awaited: Iterable[str]) -> None:
    if missing_ids := ", ".join(awaited):
        words = "An assistant message with 'tool_calls' must be followed by tool messages responding to each"
        ids = f"The following tool_call_ids did not have response messages: {missing_ids}"
        raise RequestRejected(f"{words} 'tool_call_id'. {ids}", param="messages")


def _check_function(function: Function) -> None:
    if not function.name:
        raise missing(f"{function.place}.name")
    if not _NAME.fullmatch(function.name):
        message = f"Invalid '{function.place}.name': string does not match pattern. Expected '^[a-zA-Z0-9_-]+$'."
        raise RequestRejected(message, param=f"{function.place}.name", code="invalid_value")
    parameters = function.parameters
    if parameters is None and not function.strict:
        return
    try:
        _check_parameters(parameters if isinstance(parameters, dict) else {}, function.strict)
    except SchemaRejected as error:
        message = f"Invalid schema for function '{function.name}': {error}"
        param = f"{function.place}.parameters"
        raise RequestRejected(message, param=param, code="invalid_function_parameters") from error


def _check_parameters(schema: dict[str, Any], strict: bool) -> None:
    if strict:
        check_strict(schema)
    elif schema.get("type") != "object":
        raise SchemaRejected(
            f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'."
        )


def _check_choice(request: ModelRequest) -> None:
    choice = request.tool_choice
    if isinstance(request.body.get("tool_choice"), str) and choice not in _CHOICES[:-1]:
        message = f"Invalid value: '{choice}'. Supported values are: 'none', 'auto', and 'required'."
        raise RequestRejected(message, param="tool_choice", code="invalid_value")
    if choice not in ("auto", "none") and not request.body.get("tools"):
        message = f"Tool choice '{choice}' must be specified with 'tools' parameter."
        raise RequestRejected(message, param="tool_choice", code="invalid_value")
    if choice == "function" and request.chosen not in {function.name for function in request.functions}:
        message = f"Tool choice 'function' with name '{request.chosen}' not found in 'tools' parameter."
        raise RequestRejected(message, param="tool_choice", code="invalid_value")


def _unmatched(message: str) -> RequestRejected:
    return RequestRejected(message, param="input")
