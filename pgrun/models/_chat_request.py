"""Writes what is asked in the words of the Chat Completions API: the conversation as messages, the tools, the output's form."""

import json
from itertools import takewhile
from typing import Any, Literal

from pydantic_core import from_json

from pgrun.errors import ModelRejected
from pgrun.models._openai_fields import data_url
from pgrun.models.base import Message, ModelRequest, OutputFormat, ToolCall, ToolSpec

StructuredOutput = Literal["json_schema", "json_object", "prompt"]

FINAL = "Your final answer has to be one JSON object that follows this JSON Schema, with nothing before or after it:\n{schema}"


def chat_messages(request: ModelRequest, shown: OutputFormat | None) -> list[dict[str, Any]]:
    """The conversation; the schema of `shown` becomes part of the system prompt.

    There is one system prompt at most, at the beginning: the templates of many models take no more.
    """
    prompts = [message.content for message in takewhile(lambda message: message.role == "system", request.messages)]
    others = map(_message, request.messages[len(prompts) :])
    if shown is not None:
        prompts.append(FINAL.format(schema=json.dumps(shown.schema, ensure_ascii=False)))
    return [_said("system", "\n\n".join(prompts)), *others] if prompts else [*others]


def response_format(output: OutputFormat, structured_output: StructuredOutput) -> dict[str, Any]:
    """The arguments that tell what form the answer has; none if only the prompt says it."""
    if structured_output == "prompt":
        return {}
    if structured_output == "json_object":
        return {"response_format": {"type": "json_object"}}
    schema = {"name": output.name, "schema": output.schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def described(tool: ToolSpec) -> dict[str, Any]:
    """What a tool is; what is not strict by default is not called so, because not every server knows the word."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": {**function, "strict": True} if tool.strict else function}


def chosen(name: str) -> dict[str, Any]:
    """That the tool of this name has to be called."""
    return {"type": "function", "function": {"name": name}}


def _message(message: Message) -> dict[str, Any]:
    """Made of text and calls only: `items` may be of another provider, and thoughts have no place in this API."""
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.call_id, "content": message.content}
    if message.media:
        said = [{"type": "text", "text": message.content}] if message.content else []
        return {"role": message.role, "content": [*said, *map(_part, message.media)]}
    if not message.calls:
        return _said(message.role, message.content)
    return {
        "role": "assistant",
        "content": message.content or None,
        "tool_calls": [_call(call) for call in message.calls],
    }


def _part(media: dict[str, Any]) -> dict[str, Any]:
    """An image or a file.

    Raises:
        ModelRejected: It is a file at a URL, which this API does not take.
    """
    if media["type"] == "image":
        detail = {"detail": media["detail"]} if "detail" in media else {}
        return {"type": "image_url", "image_url": {"url": media.get("url") or data_url(media), **detail}}
    if "url" in media:
        raise ModelRejected("Chat Completions take no files by URL: give content= or filepath=, or use OpenAIResponses")
    return {"type": "file", "file": {"filename": media["filename"], "file_data": data_url(media)}}


def _said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": _arguments(call.arguments)}
    return {"id": call.call_id, "type": "function", "function": function}


def _arguments(text: str) -> str:
    """What the model wrote, as an object: servers read it for the model's template, and reject a conversation with less.

    The model is told what was wrong by the call's result.
    """
    try:
        if isinstance(from_json(text or "{}", allow_inf_nan=False), dict):
            return text or "{}"
    except ValueError:
        pass
    return json.dumps({"invalid": text}, ensure_ascii=False)
