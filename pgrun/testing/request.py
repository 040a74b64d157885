"""What a call asks for: the body of a request, with names for what tests, checks and answers look at.

`acceptance` says whether the provider would take it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pgrun.testing.answers import HttpError


class RequestRejected(Exception):
    """The provider would not accept this request; `answer` is what it says."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.answer = HttpError(status, message, code=code, param=param, delay=0)


def missing(param: str) -> RequestRejected:
    """What the provider says where a request leaves out what it needs."""
    return RequestRejected(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


@dataclass(frozen=True)
class Function:
    """A function the model may call.

    Attributes:
        place: The parameter that declares it, as errors name it: ``tools[0]``.
        parameters: The JSON schema of its arguments, None where it is not given.
    """

    place: str
    name: str
    parameters: dict[str, Any] | None
    strict: bool


@dataclass(frozen=True)
class ModelRequest:
    """The body of one ``POST /v1/responses``."""

    body: dict[str, Any]

    @property
    def model(self) -> str:
        """The model asked for, "" where there is none."""
        return str(self.body.get("model") or "")

    @cached_property
    def texts(self) -> list[str]:
        """Every text the model would read: instructions, messages, tool outputs."""
        return [str(self.body.get("instructions") or ""), *(text for item in self.items for text in _texts(item))]

    @property
    def user_text(self) -> str:
        """The last user message, "" where there is none."""
        users = [item for item in self.items if item.get("role") == "user"]
        return "\n".join(_texts(users[-1])) if users else ""

    @property
    def output_format(self) -> Mapping[str, Any]:
        """Which form the answer has to have: its `type`, and for "json_schema" `name`, `schema` and `strict`."""
        text = self.body.get("text")
        found = text.get("format") if isinstance(text, dict) else None
        return found if isinstance(found, dict) else {"type": "text"}

    @property
    def schema(self) -> dict[str, Any] | None:
        """The JSON schema the answer has to match, or None for free text."""
        return self.output_format.get("schema") if self.output_format.get("type") == "json_schema" else None

    @property
    def functions(self) -> list[Function]:
        """The functions offered; tools that the provider runs itself are not among them."""
        return [
            Function(f"tools[{at}]", str(tool.get("name") or ""), tool.get("parameters"), tool.get("strict") is True)
            for at, tool in enumerate(self.body.get("tools") or [])
            if isinstance(tool, dict) and tool.get("type") == "function"
        ]

    @property
    def tool_choice(self) -> str:
        """Whether the model calls tools: "auto", "none", "required", or "function" where it has to call `chosen`."""
        choice = self.body.get("tool_choice") or "auto"
        if isinstance(choice, dict):
            return str(choice.get("mode") if choice.get("type") == "allowed_tools" else choice.get("type"))
        return str(choice)

    @property
    def chosen(self) -> str | None:
        """The one function that the model has to call, or None."""
        choice = self.body.get("tool_choice")
        return choice.get("name") if isinstance(choice, dict) and choice.get("type") == "function" else None

    @property
    def parallel(self) -> bool:
        """Whether one answer may call more than one function."""
        return self.body.get("parallel_tool_calls") is not False

    @property
    def max_output_tokens(self) -> int:
        """How many tokens the answer may have, 0 where the request sets no limit."""
        limit = self.body.get("max_output_tokens")
        return limit if isinstance(limit, int) else 0

    @property
    def streams(self) -> bool:
        """Whether the answer shall come as a stream of events."""
        return bool(self.body.get("stream"))

    @property
    def items(self) -> list[dict[str, Any]]:
        """The input, item by item; a text is one user message."""
        given = self.body.get("input") or []
        if isinstance(given, str):
            return [{"role": "user", "content": given}]
        return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def parse(raw: bytes) -> dict[str, Any] | None:
    """The JSON object in these bytes, or None if they are none."""
    try:
        body = json.loads(raw)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _texts(item: Mapping[str, Any]) -> Iterator[str]:
    # A message has `content`, a tool's result has `output`; either is a text or a list of parts that may have one.
    for value in (item.get("content"), item.get("output")):
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (part["text"] for part in value if isinstance(part, dict) and isinstance(part.get("text"), str))
