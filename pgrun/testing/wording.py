"""Made-up texts: `generate` and `makeup` ask here for something that reads pleasantly and keeps to its schema."""

import re
import sys
from collections.abc import Callable
from typing import Any

from pgrun.testing.pattern import text_for_pattern

# A capitalised word, or several in a row ("Rio de Janeiro" too), that does not begin a sentence.
_WORD = r"[A-Z\u00c0-\u00de][\w'-]*"
_NAME = re.compile(rf"(?:(?<=[\w,;:&*-] )|(?<=\()){_WORD}(?:(?: of| de| da| del| am)? {_WORD})*")
_LONGEST_ECHO = 120

_FORMATS: dict[str, Callable[[int], str]] = {
    "date-time": lambda n: f"2025-01-{_day(n)}T09:00:00Z",
    "date": lambda n: f"2025-01-{_day(n)}",
    "time": lambda n: f"{n % 24:02}:00:00Z",
    "duration": lambda n: f"PT{n}H",
    "email": lambda n: f"person{n}@example.com",
    "hostname": lambda n: f"host{n}.example.com",
    "ipv4": lambda n: f"192.0.2.{n % 256}",
    "ipv6": lambda n: f"2001:db8::{n % 10000}",
    "uri": lambda n: f"https://example.com/{n}",
    "uuid": lambda n: f"00000000-0000-4000-8000-{n:012}",
}


class CannotGenerate(Exception):
    """No valid value can be made up here; a test has to script one."""


def made_up_text(node: dict[str, Any], label: str, count: int) -> str:
    """A text that the string schema `node` allows: of its format, its pattern, or the label with its number.

    Raises:
        CannotGenerate: The pattern is too intricate for this simple way.
    """
    least, most = node.get("minLength", 0), node.get("maxLength", sys.maxsize)
    if "pattern" in node:
        text = text_for_pattern(node["pattern"], least, most, count)
        if text is None:
            raise CannotGenerate(f"{label} has the pattern {node['pattern']}")
        return text
    if node.get("format") in _FORMATS:
        return _FORMATS[node["format"]](count)
    return _fitted(f"{label} {count}", least, most)


def label_of(node: dict[str, Any], name: str) -> str:
    """What to call a value: its title or its name, as the beginning of a sentence."""
    words = str(node.get("title") or name).replace("_", " ").split()
    words = [word if word.isupper() else word.lower() for word in words]
    return " ".join(words)[:1].upper() + " ".join(words)[1:]


def singular(label: str) -> str:
    """What to call one of several."""
    if label.endswith("ies"):
        return label[:-3] + "y"
    return label[:-1] if label.endswith("s") and not label.endswith("ss") else label


def names_in(prompt: str) -> list[str]:
    """What a prompt names, in its order: "facts about Tokyo, Paris, and New York" names three."""
    found = (match.group() for match in _NAME.finditer(prompt))
    return list(dict.fromkeys(name for name in found if name != "I" and not name.startswith("I'")))


def made_up_sentence(question: str) -> str:
    """An answer in free text that shows which question it belongs to."""
    question = " ".join(question.split())
    if len(question) > _LONGEST_ECHO:
        question = question[:_LONGEST_ECHO].rstrip() + "…"
    return f"A made-up answer to: {question}" if question else "A made-up answer."


def _day(count: int) -> str:
    return f"{(count - 1) % 28 + 1:02}"


def _fitted(text: str, least: int, most: int) -> str:
    while len(text) < least:
        text += f" {text}"
    # Where a limit cuts the number off, its end matters more than the label's beginning: texts stay apart.
    return text if len(text) <= most else text[len(text) - most :]
