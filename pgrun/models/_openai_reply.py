"""What a server sends back, in whichever form it does: the events of a stream, or a whole answer although a stream was asked for.

Of streams the SDK is given no more to do than to cut them into events: its helpers lose what was paid for when an answer fails,
and a stream that is cut ends for it like any other. Whoever reads events here has to see the last one.
"""

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from openai._legacy_response import LegacyAPIResponse


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_END = 0.1  # seconds for the end of a stream after its last event; with it the connection can be used again


def is_stream(raw: "LegacyAPIResponse[Any]") -> bool:
    """Whether events come, and not a whole answer."""
    return "text/event-stream" in raw.headers.get("content-type", "")


async def whole(raw: "LegacyAPIResponse[Any]") -> Any:
    """A whole answer: JSON data, or the text of what does not claim to be JSON.

    Raises:
        ValueError: It is not the JSON that it claims to be.
    """
    http = raw.http_response
    await http.aread()
    if "json" in http.headers.get("content-type", ""):
        return http.json()
    with suppress(ValueError):
        return http.json()
    return http.text


async def events(raw: "LegacyAPIResponse[Any]") -> AsyncGenerator[dict[str, Any], None]:
    """The events of a stream, as data; to be closed by whoever does not read to the end."""
    from openai import AsyncStream

    stream = raw.parse(to=AsyncStream[object])
    try:
        async for event in stream:
            if isinstance(event, dict):
                yield event
    finally:
        await stream.close()  # which the HTTP client shields by itself


async def read_out(stream: AsyncGenerator[dict[str, Any], None]) -> None:
    """Waits a moment for the end of a stream whose last event has come."""
    with anyio.move_on_after(_END):
        async for _ in stream:
            pass


def rate_limits(headers: Mapping[str, str]) -> dict[str, float] | None:
    """What the ``x-ratelimit-`` headers say, as in `ModelResponse.rate_limits`."""
    found = {}
    for what in ("limit", "remaining", "reset"):
        for of in ("requests", "tokens"):
            value = _number(headers.get(f"x-ratelimit-{what}-{of}", ""))
            if value is not None:
                found[f"{what}_{of}"] = value
    return found or None


def _number(text: str) -> float | None:
    """A number, or the seconds of a duration such as ``6m0s``."""
    parts = _PART.findall(text)
    if not parts or "".join(map("".join, parts)) != text:
        return None
    return sum(float(value) * _UNITS[unit or "s"] for value, unit in parts)
