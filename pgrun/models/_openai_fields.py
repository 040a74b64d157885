"""Reads what the SDK hands out, which is constructed from whatever came: nothing in it is certain, whatever its types promise.

And writes the one field that both APIs have in common.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pgrun.errors import ModelUnavailable
from pgrun.models._openai_failures import uncertain
from pgrun.run.metrics import RunMetrics


def given(value: Any, *path: str) -> Any:
    """What is there, or None.

    Compatible servers leave things out, and the SDK then has no such attribute; an answer that was paid for must not be
    lost over that.
    """
    for name in path:
        value = getattr(value, name, None)
    return value


def usage_of(answer: Any, input_name: str, output_name: str) -> RunMetrics:
    """What an answer has used; `input_name` and `output_name` begin the names of the fields that say it."""
    used = given(answer, "usage")
    input_tokens = given(used, f"{input_name}_tokens") or 0
    output_tokens = given(used, f"{output_name}_tokens") or 0
    return RunMetrics(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        total_tokens=given(used, "total_tokens") or input_tokens + output_tokens,
        cached_tokens=given(used, f"{input_name}_tokens_details", "cached_tokens") or 0,
        reasoning_tokens=given(used, f"{output_name}_tokens_details", "reasoning_tokens") or 0,
    )


def data_url(media: Mapping[str, Any]) -> str:
    """The content of an image or file, as both APIs take it."""
    return f"data:{media['mime_type']};base64,{media['data']}"


@contextmanager
def reading(answer: Any, what: str) -> Iterator[None]:
    """Makes `ModelUnavailable` of what fails in its block: a login page of some proxy was read, or nearly an answer."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        words = f"the server sent something else than {what}: {answer!r:.200}"
        raise uncertain(ModelUnavailable(words, code="unreadable")) from error
