"""Writes what is asked in the words of the Responses API: the conversation as input items, and the tools."""

from collections.abc import Iterable, Iterator
from typing import Any

from pgrun.models.base import Message, ModelRequest, ToolSpec

_ROLES = {"system": "developer", "user": "user", "assistant": "assistant"}
CHOICES = ("auto", "none", "required")


def input_items(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The conversation; an answer with calls becomes one item for each of them."""
    return [item for message in messages for item in _items(message)]


def tool_arguments(request: ModelRequest) -> dict[str, Any]:
    """The arguments that tell of tools; none if there are none."""
    if not request.tools:
        return {}
    tools = {"tools": [_tool(spec) for spec in request.tools]}
    choice = request.tool_choice
    if choice is None:
        return tools
    return tools | {"tool_choice": choice if choice in CHOICES else {"type": "function", "name": choice}}


def _items(message: Message) -> Iterator[dict[str, Any]]:
    if message.items:
        yield from message.items
    elif message.role == "tool":
        yield {"type": "function_call_output", "call_id": message.call_id, "output": message.content}
    else:
        if message.content or not message.calls:
            yield {"role": _ROLES[message.role], "content": message.content}
        for call in message.calls:
            yield {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments}


def _tool(spec: ToolSpec) -> dict[str, Any]:
    return {
        "type": "function",
        "name": spec.name,
        "description": spec.description,
        "parameters": spec.parameters,
        "strict": spec.strict,
    }
