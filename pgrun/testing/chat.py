"""The Chat Completions API: what its requests have to look like; `completion` makes the answers."""

import json
from collections.abc import Mapping
from typing import Any

from pgrun.testing.acceptance import FormatNames, check_format, check_types
from pgrun.testing.answers import HttpError, Reply
from pgrun.testing.completion import chunks, completion_body
from pgrun.testing.makeup import ImpossibleReply
from pgrun.testing.request import Function, ModelRequest, RequestRejected, missing
from pgrun.testing.response import error_body, usage_of
from pgrun.testing.tools import check_tool_messages, check_tools
from pgrun.testing.work import Plan, Step, Work

_FORMAT_NAMES = FormatNames("response_format", "response_format.json_schema", "response_format", None)

_TYPES: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "messages": (list,),
    "tools": (list,),
    "tool_choice": (str, dict),
    "parallel_tool_calls": (bool,),
    "response_format": (dict,),
    "max_tokens": (int,),
    "max_completion_tokens": (int,),
    "stream": (bool,),
    "stream_options": (dict,),
}


class ChatRequest(ModelRequest):
    """The body of one ``POST /v1/chat/completions``."""

    @property
    def output_format(self) -> Mapping[str, Any]:
        """See `ModelRequest.output_format`."""
        found = self.body.get("response_format")
        if not isinstance(found, dict):
            return {"type": "text"}
        inner = found.get("json_schema")
        return {**(inner if isinstance(inner, dict) else {}), "type": found.get("type")}

    @property
    def functions(self) -> list[Function]:
        """See `ModelRequest.functions`."""
        found = []
        for at, tool in enumerate(self.body.get("tools") or []):
            if isinstance(tool, dict) and isinstance(declared := tool.get("function"), dict):
                name, strict = str(declared.get("name") or ""), declared.get("strict") is True
                found.append(Function(f"tools[{at}].function", name, declared.get("parameters"), strict))
        return found

    @property
    def chosen(self) -> str | None:
        """See `ModelRequest.chosen`."""
        choice = self.body.get("tool_choice")
        declared = choice.get("function") if isinstance(choice, dict) else None
        return declared.get("name") if isinstance(declared, dict) else None

    @property
    def max_output_tokens(self) -> int:
        """See `ModelRequest.max_output_tokens`."""
        limit = self.body.get("max_completion_tokens") or self.body.get("max_tokens")
        return limit if isinstance(limit, int) else 0

    @property
    def items(self) -> list[dict[str, Any]]:
        """The messages."""
        given = self.body.get("messages")
        return [message for message in given if isinstance(message, dict)] if isinstance(given, list) else []


class ChatApi:
    """``POST /v1/chat/completions``; nothing of it is stored, and nothing goes on without its client."""

    path = "/v1/chat/completions"

    def read(self, body: dict[str, Any]) -> ModelRequest:
        """The request with this body."""
        return ChatRequest(body)

    def check(self, request: ModelRequest) -> None:
        """Check everything about a request but its key.

        Raises:
            RequestRejected: The provider would not accept it.
        """
        check_types(request.body, _TYPES)
        _check_parameters(request.body)
        check_format(request.output_format, _FORMAT_NAMES)
        check_tools(request)
        check_tool_messages(request.items)

    def plan(self, request: ModelRequest, reply: Reply, deltas: int) -> Plan:
        """What leads to this reply.

        Raises:
            ImpossibleReply: It fails; that cannot be said here once HTTP has said 200.
        """
        usage = usage_of(reply, request)
        if reply.ending == "failed" or usage is None:
            raise ImpossibleReply(
                "a chat completion cannot end as failed: script an error status, or cut the connection"
            )
        body = completion_body(reply, request, usage)
        options = request.body.get("stream_options") or {}
        return Plan(body["id"], body, [], chunks(body, deltas, with_usage=bool(options.get("include_usage"))), usage)

    def keep(self, request: ModelRequest, work: Work) -> None:
        """Nothing is stored."""

    def goes_on_alone(self, request: ModelRequest) -> bool:
        """There is no background mode."""
        return False

    def abandon(self, work: Work) -> None:
        """End what has lost its client."""
        work.stop(work.body)

    @staticmethod
    def frame(step: Step) -> bytes:
        """A step as a server-sent event; the last is followed by the mark that ends the stream."""
        mark = "data: [DONE]\n\n" if step.final else ""
        return f"data: {json.dumps(step.event)}\n\n{mark}".encode()

    @staticmethod
    def error_event(error: HttpError, number: int) -> dict[str, Any]:
        """What a stream that breaks with an error sends last; chunks have no numbers."""
        return error_body(error)


def _check_parameters(body: Mapping[str, Any]) -> None:
    if not body.get("model"):
        raise missing("model")
    if body.get("messages") is None:
        raise missing("messages")
    if not body["messages"]:
        message = "Invalid 'messages': empty array. Expected an array with minimum length 1."
        raise RequestRejected(message, param="messages", code="empty_array")
    if body.get("stream_options") and not body.get("stream"):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise RequestRejected(message, param="stream_options")
    if body.get("parallel_tool_calls") is not None and not body.get("tools"):
        message = (
            "Invalid value for 'parallel_tool_calls': 'parallel_tool_calls' is only allowed when 'tools' are specified."
        )
        raise RequestRejected(message, param="parallel_tool_calls")
    if body.get("n", 1) not in (None, 1):
        message = "Unsupported parameter: 'n' is not something this test server can do."
        raise RequestRejected(message, param="n", code="unsupported_parameter")
