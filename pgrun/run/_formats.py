"""The `format` of a text, checked without the Python type: a date must be a date for a bare worker, too.

Only the shape is left to a pattern; what it means is left to Pydantic's own type, so that messages read alike. The pattern is
needed because Pydantic also takes a date from a number of seconds, and a duration from words.
"""

import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from uuid import UUID

import pydantic
from pydantic import AnyUrl, Base64Bytes, Base64UrlBytes, IPvAnyAddress, TypeAdapter
from pydantic_core import PydanticCustomError, SchemaValidator, ValidationError, core_schema

Check = Callable[[Any], Any]

# JSON Schema's words for the bounds of a number, and Pydantic's.
NUMBER_BOUNDS = {
    "minimum": "ge",
    "exclusiveMinimum": "gt",
    "maximum": "le",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
}

_TYPES: dict[str, tuple[str, Any]] = {
    "date": (r"\d{4}-\d\d-\d\d\Z", date),
    "date-time": (r"\d{4}-\d\d-\d\d[Tt ]", datetime),
    "time": (r"\d\d:\d\d", time),
    "duration": (r"[-+]?P", timedelta),
    "uuid": ("", UUID),
    **{f"uuid{version}": ("", getattr(pydantic, f"UUID{version}")) for version in (1, 3, 4, 5, 6, 7, 8)},
    "ipv4": ("", IPv4Address),
    "ipv6": ("", IPv6Address),
    "ipvanyaddress": ("", IPvAnyAddress),
    "uri": ("", AnyUrl),
    "email": (r"[^@\s]+@[^@\s]+\Z", str),  # Pydantic's own check needs a package that may not be there
    "base64": ("", Base64Bytes),
    "base64url": ("", Base64UrlBytes),
}


@lru_cache(maxsize=64)
def text_check(name: str) -> Check | None:
    """Returns a function that passes a text on unchanged, or raises what Pydantic's validators may raise; None if unknown."""
    if name not in _TYPES:
        return None
    pattern, python_type = _TYPES[name]
    shape = re.compile(pattern)
    meaning = _passes(TypeAdapter(python_type).validator)

    def check(text: str) -> str:
        if not shape.match(text):
            raise PydanticCustomError("string_format", "Input should be in the format {name}", {"name": name})
        meaning(text)
        return text

    return check


def decimal_check(node: dict[str, Any]) -> Check:
    """Returns a function that checks a number or a text against the bounds and digits that a schema node gives to a Decimal."""
    bounds: dict[str, Any] = {ours: Decimal(str(node[key])) for key, ours in NUMBER_BOUNDS.items() if key in node}
    schema = core_schema.decimal_schema(
        **bounds, max_digits=node.get("maxDigits"), decimal_places=node.get("decimalPlaces")
    )
    return _passes(SchemaValidator(schema))


def _passes(validator: Any) -> Check:
    def check(value: Any) -> Any:
        try:
            validator.validate_python(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            # As context, for the message itself may hold braces.
            raise PydanticCustomError(first["type"], "{message}", {"message": first["msg"]}) from None
        return value

    return check
