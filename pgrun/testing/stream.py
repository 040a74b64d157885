"""The events of a Response object: `responses` cuts here the stream that leads to a finished body.

The order and the fields are the provider's. A stream that ends without its last event has been cut, or its response
cancelled: there is no event for that.
"""

from collections.abc import Iterator
from itertools import count
from typing import Any

from pgrun.testing.work import Step

Event = dict[str, Any]

_UNFINISHED: Event = {"output": [], "usage": None, "completed_at": None, "error": None, "incomplete_details": None}


def pieces(text: str, wanted: int) -> list[str]:
    """The text in `wanted` pieces of about the same length, fewer where it has fewer characters."""
    size = max(1, -(-len(text) // max(1, wanted)))
    return [text[at : at + size] for at in range(0, len(text), size)]


def events(final: dict[str, Any], deltas: int) -> tuple[list[Step], list[Step]]:
    """The steps that lead to a Response object: those that come at once, and those the model works for."""
    opening = [_about(kind, unfinished(final, status)) for kind, status in _opening(final)]
    output = [*_items(final["output"], deltas), _about(f"response.{final['status']}", final, final=True)]
    numbers = count()
    for step in (*opening, *output):
        step.event["sequence_number"] = next(numbers)
    return opening, output


def unfinished(final: dict[str, Any], status: str) -> dict[str, Any]:
    """The Response object as it was before there was any output."""
    return {**final, **_UNFINISHED, "status": status}


def _opening(final: dict[str, Any]) -> list[tuple[str, str]]:
    if not final["background"]:
        return [("response.created", "in_progress"), ("response.in_progress", "in_progress")]
    return [
        ("response.created", "queued"),
        ("response.queued", "queued"),
        ("response.in_progress", "in_progress"),
    ]


def _about(kind: str, body: dict[str, Any], *, final: bool = False) -> Step:
    return Step({"type": kind, "response": body}, body=body, final=final)


def _items(items: list[dict[str, Any]], deltas: int) -> Iterator[Step]:
    for at, item in enumerate(items):
        place = {"item_id": item["id"], "output_index": at}
        is_message = item["type"] == "message"
        begun = {**item, "status": "in_progress", "content" if is_message else "arguments": [] if is_message else ""}
        yield Step({"type": "response.output_item.added", "output_index": at, "item": begun})
        yield from _parts(item["content"], place, deltas) if is_message else _arguments(item, place, deltas)
        yield Step({"type": "response.output_item.done", "output_index": at, "item": item})


def _parts(parts: list[dict[str, Any]], place: Event, deltas: int) -> Iterator[Step]:
    for at, part in enumerate(parts):
        here = {**place, "content_index": at}
        kind, key = ("refusal", "refusal") if part["type"] == "refusal" else ("output_text", "text")
        more: Event = {} if key == "refusal" else {"logprobs": []}
        yield Step({"type": "response.content_part.added", **here, "part": {**part, key: ""}})
        for piece in pieces(part[key], deltas):
            yield Step({"type": f"response.{kind}.delta", **here, "delta": piece, **more}, len(piece))
        yield Step({"type": f"response.{kind}.done", **here, key: part[key], **more})
        yield Step({"type": "response.content_part.done", **here, "part": part})


def _arguments(item: dict[str, Any], place: Event, deltas: int) -> Iterator[Step]:
    kind = "response.function_call_arguments"
    for piece in pieces(item["arguments"], deltas):
        yield Step({"type": f"{kind}.delta", **place, "delta": piece}, len(piece))
    yield Step({"type": f"{kind}.done", **place, "name": item["name"], "arguments": item["arguments"]})
