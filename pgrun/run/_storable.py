"""What Postgres can store as `jsonb`: input is checked before a run is submitted, answers are made storable before they are read.

`jsonb` takes no NUL, no lone surrogate and no infinite number, and it keeps neither the order of keys nor the notation of
numbers. Input with such data is refused, for it is the caller's. An answer is paid for: its characters are replaced.
"""

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from pgrun.errors import UsageError

_REPLACEMENT = "\ufffd"
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# Reads the escapes of a JSON text from left to right, so that an escaped backslash never lends its second half to what follows.
_ESCAPES = re.compile(
    r"(?P<pair>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|(?P<bad>\\u0000|\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|\\.",
    re.DOTALL,
)
# JSON parsers stop near 200 levels (Pydantic's does), and data that contains itself must end somewhere.
_MAX_DEPTH = 200
# Python and Pydantic read integers of up to 4300 digits; log2(10) bits each.
_MAX_INTEGER_BITS = int(4300 * math.log2(10))
# Put before the name of a type that has no JSON form; no storable text begins like this.
_NO_JSON_FORM = "\x00no JSON form: "


def storable_text(text: str) -> str:
    """Returns the text with every NUL and lone surrogate replaced by U+FFFD; for plain text."""
    return _UNSTORABLE.sub(_REPLACEMENT, text)


def storable_json(text: str) -> str:
    r"""Returns JSON text with NUL and lone surrogates replaced by U+FFFD, also where they are written as escapes.

    `\u0000` and `\ud800` become `\ufffd`; a surrogate pair and an escaped backslash before `u0000` stay what they are.
    """
    return _ESCAPES.sub(lambda match: r"\ufffd" if match["bad"] else match[0], storable_text(text))


def to_jsonable(value: Any, *, name: str = "input") -> Any:
    """Returns the value as plain JSON data that Postgres can store.

    Args:
        value: Text, numbers, dicts, lists, and whatever Pydantic can serialise: models, dataclasses, dates, UUIDs, enums …
        name: What messages call the value.

    Raises:
        UsageError: Something in it has no JSON form or cannot be stored; the message begins with its path.
    """
    try:
        data = to_jsonable_python(value, fallback=lambda item: _NO_JSON_FORM + type(item).__name__)
    except (PydanticSerializationError, ValueError) as error:
        raise UsageError(find_unstorable(value, name=name) or f"{name}: {error}") from error
    if reason := find_unstorable(data, name=name):
        raise UsageError(reason)
    return data


def find_unstorable(value: Any, *, name: str = "input") -> str | None:
    r"""Returns path and reason of the first thing in JSON-like data that Postgres cannot store, or None.

    For example ``"input.customer.name: contains NUL (\x00), which PostgreSQL cannot store"``.
    """
    found = _search(value, ())
    return f"{path_text(found[0], root=name)}: {found[1]}" if found else None


def path_text(loc: Iterable[str | int], *, root: str = "") -> str:
    """Returns a location such as ``("cities", 0, "name")`` as ``"cities[0].name"``."""
    text = root
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier():
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part, ensure_ascii=False)}]"
    return text


def canonical_json(value: Any) -> str:
    """Returns the same text for the same JSON data, before and after `jsonb` reordered its keys and respelled its numbers."""
    return json.dumps(_plain_numbers(value), sort_keys=True, separators=(",", ":"))


def _search(value: Any, loc: tuple[str | int, ...]) -> tuple[tuple[str | int, ...], str] | None:
    if len(loc) > _MAX_DEPTH:
        return loc[:3], f"nested deeper than {_MAX_DEPTH} levels, or contains itself"
    if isinstance(value, dict):
        return _search_dict(value, loc)
    if isinstance(value, list | tuple):
        return next(filter(None, (_search(item, (*loc, index)) for index, item in enumerate(value))), None)
    reason = _scalar_reason(value)
    return (loc, reason) if reason else None


def _search_dict(value: dict[Any, Any], loc: tuple[str | int, ...]) -> tuple[tuple[str | int, ...], str] | None:
    for key, item in value.items():
        if not isinstance(key, str):
            return loc, f"has the key {key!r}; JSON allows only text as keys"
        if reason := _text_reason(key):
            return loc, f"has the key {key!a}, which {reason}"
        if found := _search(item, (*loc, key)):
            return found
    return None


def _scalar_reason(value: Any) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return _text_reason(value)
    if isinstance(value, int):
        return "is an integer of more than 4300 digits" if value.bit_length() > _MAX_INTEGER_BITS else None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"is {value}, which is not a JSON number"
    return f"is of type {type(value).__name__}, which has no JSON form"


def _text_reason(text: str) -> str | None:
    if text.startswith(_NO_JSON_FORM):
        return f"is of type {text.removeprefix(_NO_JSON_FORM)}, which has no JSON form"
    found = _UNSTORABLE.search(text)
    if not found:
        return None
    if found[0] == "\x00":
        return r"contains NUL (\x00), which PostgreSQL cannot store"
    return f"contains the lone surrogate {found[0]!a}, which PostgreSQL cannot store"


def _plain_numbers(value: Any) -> Any:
    """Writes 3.0 as 3, for `jsonb` turns 1e3 into 1000."""
    if isinstance(value, dict):
        return {key: _plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
