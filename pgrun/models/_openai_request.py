"""Writes what is asked in the words of the Responses API: the conversation as input items, and the tools."""

from collections.abc import Iterable, Iterator
from typing import Any

from pgrun.models._openai_fields import data_url
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


def _content(message: Message) -> str | list[dict[str, Any]]:
    if not message.media:
        return message.content
    said = [{"type": "input_text", "text": message.content}] if message.content else []
    return [*said, *map(_part, message.media)]


def _part(media: dict[str, Any]) -> dict[str, Any]:
    """An image or a file; what is not said is left to the provider."""
    if media["type"] == "image":
        detail = {"detail": media["detail"]} if "detail" in media else {}
        return {"type": "input_image", "image_url": media.get("url") or data_url(media), **detail}
    if "url" in media:
        return {"type": "input_file", "file_url": media["url"]}
    return {"type": "input_file", "filename": media["filename"], "file_data": data_url(media)}


def _items(message: Message) -> Iterator[dict[str, Any]]:
    if message.items:
        yield from message.items
    elif message.role == "tool":
        yield {"type": "function_call_output", "call_id": message.call_id, "output": message.content}
    else:
        if message.content or not message.calls:
            yield {"role": _ROLES[message.role], "content": _content(message)}
        for call in message.calls:
            yield {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments}
