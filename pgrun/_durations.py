"""Durations: float seconds everywhere, checked where users hand them in, and read from text on the command line."""

import re

from pgrun.errors import UsageError

CENTURY = 100 * 366 * 86_400.0

_TEXT = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def is_duration(value: object, *, least: float = 0.0) -> bool:
    """Whether a value is a number of seconds from `least` to a century, beyond which the database cannot reckon."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= CENTURY


def seconds_of(text: str, *, option: str) -> float:
    """The seconds that a person means by ``30m``, ``12h``, ``7d``, ``1.5h``, ``90s`` or ``90``.

    Raises:
        UsageError: It is none of these; the message names the option.
    """
    found = _TEXT.fullmatch(text)
    if found is None or not is_duration(seconds := float(found[1]) * _SECONDS[found[2]]):
        raise UsageError(
            f"{option} {text}: a duration such as 30m, 12h or 7d, or a number of seconds; at most a century"
        )
    return seconds
