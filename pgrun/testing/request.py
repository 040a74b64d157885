"""What a call asks for, and whether the provider would accept it: `endpoint` reads each request here first.

What the provider answers with 400 or 401 is refused here in the same words, so that a request that only a forgiving
fake would accept is found in a test and not at the first paid call.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pgrun.testing.answers import HttpError
from pgrun.testing.strictness import SchemaRejected, check_strict

_SCHEMA_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Any of these says what to answer; a request has to have one.
_SOURCES = ("input", "previous_response_id", "prompt", "conversation")
_NOT_OFFERED = ("stream", "background")


class RequestRejected(Exception):
    """The provider would not accept this request; `answer` is what it says."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.answer = HttpError(status, message, code=code, param=param, delay=0)


@dataclass(frozen=True)
class ModelRequest:
    """The body of one ``POST /v1/responses``, with names for what tests and answers look at."""

    body: dict[str, Any]

    @property
    def model(self) -> str:
        """The model asked for, "" where there is none."""
        return str(self.body.get("model") or "")

    @cached_property
    def texts(self) -> list[str]:
        """Every text the model would read: instructions, messages, tool outputs."""
        return [str(self.body.get("instructions") or ""), *(text for item in self._items for text in _texts(item))]

    @property
    def user_text(self) -> str:
        """The last user message, "" where there is none."""
        users = [item for item in self._items if item.get("role") == "user"]
        return "\n".join(_texts(users[-1])) if users else ""

    @property
    def output_format(self) -> Mapping[str, Any]:
        """`text.format`: which form the answer has to have."""
        text = self.body.get("text")
        found = text.get("format") if isinstance(text, dict) else None
        return found if isinstance(found, dict) else {"type": "text"}

    @property
    def schema(self) -> dict[str, Any] | None:
        """The JSON schema the answer has to match, or None for free text."""
        return self.output_format.get("schema") if self.output_format.get("type") == "json_schema" else None

    @property
    def _items(self) -> list[dict[str, Any]]:
        given = self.body.get("input") or []
        if isinstance(given, str):
            return [{"role": "user", "content": given}]
        return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def parse(raw: bytes) -> ModelRequest | None:
    """The request in these bytes, or None if they are no JSON object."""
    try:
        body = json.loads(raw)
    except ValueError:
        return None
    return ModelRequest(body) if isinstance(body, dict) else None


def check(request: ModelRequest | None, headers: Mapping[str, str]) -> ModelRequest:
    """Return the request if the provider would accept it.

    Raises:
        RequestRejected: It would not, and says so in `answer`.
    """
    _check_key(headers.get("authorization", ""))
    if request is None:
        raise RequestRejected("We could not parse the JSON body of your request.")
    _check_parameters(request.body)
    _check_format(request.output_format)
    return request


def _check_key(authorization: str) -> None:
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise RequestRejected("You didn't provide an API key in an Authorization header (Bearer ...).", status=401)


def _check_parameters(body: Mapping[str, Any]) -> None:
    if not body.get("model"):
        raise _missing("model")
    if all(body.get(source) is None for source in _SOURCES):
        raise _missing("input")
    if not isinstance(body.get("input", ""), str | list):
        raise RequestRejected(
            "Invalid type for 'input': expected a text or a list.", param="input", code="invalid_type"
        )
    for name in _NOT_OFFERED:
        if body.get(name):
            message = f"Unsupported parameter: '{name}' is not something this test server can do."
            raise RequestRejected(message, param=name, code="unsupported_parameter")


def _check_format(wanted: Mapping[str, Any]) -> None:
    if wanted.get("type") not in ("text", "json_object", "json_schema"):
        raise RequestRejected("Invalid value for 'text.format.type'.", param="text.format.type", code="invalid_value")
    if wanted["type"] == "json_schema":
        _check_schema(wanted)


def _check_schema(wanted: Mapping[str, Any]) -> None:
    name, schema = wanted.get("name"), wanted.get("schema")
    if not name:
        raise _missing("text.format.name")
    if not _SCHEMA_NAME.fullmatch(str(name)):
        message = "Invalid 'text.format.name': expected 1 to 64 letters, digits, underscores or dashes."
        raise RequestRejected(message, param="text.format.name", code="invalid_value")
    if not isinstance(schema, dict):
        raise _missing("text.format.schema")
    if not wanted.get("strict"):
        return
    try:
        check_strict(schema)
    except SchemaRejected as error:
        message = f"Invalid schema for response_format '{name}': {error}"
        raise RequestRejected(message, param="text.format.schema", code="invalid_json_schema") from error


def _missing(param: str) -> RequestRejected:
    return RequestRejected(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def _texts(item: Mapping[str, Any]) -> Iterator[str]:
    # A message has `content`, a tool's result has `output`; either is a text or a list of parts that may have one.
    for value in (item.get("content"), item.get("output")):
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (part["text"] for part in value if isinstance(part, dict) and isinstance(part.get("text"), str))
