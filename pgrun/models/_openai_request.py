"""Writes what is asked in the words of the Responses API: the conversation as input items, and the tools."""

from collections.abc import Iterable, Iterator
from typing import Any

from pgrun.models.base import Message, ToolSpec

_ROLES = {"system": "developer", "user": "user", "assistant": "assistant"}


def input_items(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The conversation; an answer with calls becomes one item for each of them."""
    return [item for message in messages for item in _items(message)]


def described(tool: ToolSpec) -> dict[str, Any]:
    """What a tool is."""
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }


def chosen(name: str) -> dict[str, Any]:
    """That the tool of this name has to be called."""
    return {"type": "function", "name": name}


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
