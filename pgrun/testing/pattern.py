"""A made-up text that matches a regular expression: `wording` asks here for strings with a `pattern`.

Each part of the expression contributes the shortest text it accepts; whether the whole really matches is then checked
with `re` itself, so that look-arounds and the like need no rules of their own here.
"""

import importlib
import re
import string
from collections.abc import Iterable
from typing import Any

# The parser inside `re` is private in name only: unchanged for years, and far better than a second one written here.
# Imported by name because type checkers do not know it.
_parser = importlib.import_module("re._parser")

_ALPHABET = string.ascii_lowercase + string.digits + string.ascii_uppercase + " -_.,:;/@+#!?'\"()[]{}<>=*&%$|~^\\`\n\t"
_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}


def text_for_pattern(pattern: str, least: int, most: int, count: int) -> str | None:
    """A text of `least` to `most` characters that matches `pattern`, or None if this simple way finds none.

    The `count` varies it where the pattern leaves a choice of characters.
    """
    try:
        parsed = _parser.parse(pattern)
    except re.error:
        return None
    # What may repeat is made longer bit by bit until the text has its length.
    for extra in range(max(least, 3) + 1):
        text = _Writer(extra, count).sequence(parsed)
        if least <= len(text) <= most and re.search(pattern, text):
            return text
    return None


class _Writer:
    def __init__(self, extra: int, count: int) -> None:
        self._extra = extra
        self._count = count

    def sequence(self, parts: Iterable[tuple[Any, Any]]) -> str:
        """The text for several parts after each other."""
        return "".join(self._part(str(kind), value) for kind, value in parts)

    def _part(self, kind: str, value: Any) -> str:
        match kind:
            case "LITERAL":
                return chr(value)
            case "ANY" | "NOT_LITERAL":
                return "b" if value == ord("a") else "a"
            case "IN":
                return self._one_of(value)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                least, most, inner = value
                times: int = min(int(most), least + self._extra)
                return self.sequence(inner) * times
            case "SUBPATTERN":
                return self.sequence(value[-1])
            case "ATOMIC_GROUP":
                return self.sequence(value)
            case "BRANCH":
                return self.sequence(value[1][0])
            case _:  # positions and look-arounds contribute nothing; what else there is fails the check at the end
                return ""

    def _one_of(self, members: list[tuple[Any, Any]]) -> str:
        negated = str(members[0][0]) == "NEGATE"
        own = "".join(chr(value) for kind, value in members if str(kind) == "LITERAL")
        own += "".join(chr(value[0]) for kind, value in members if str(kind) == "RANGE")
        fitting = [char for char in _ALPHABET + own if any(_is_in(char, member) for member in members) != negated]
        return fitting[(self._count - 1) % len(fitting)] if fitting else ""


def _is_in(char: str, member: tuple[Any, Any]) -> bool:
    kind, value = str(member[0]), member[1]
    if kind == "LITERAL":
        return bool(ord(char) == value)
    if kind == "RANGE":
        return bool(value[0] <= ord(char) <= value[1])
    return kind == "CATEGORY" and re.match(_CATEGORIES[str(value)], char) is not None
