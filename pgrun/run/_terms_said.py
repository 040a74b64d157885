"""From the options of a run to its terms: each is checked by itself, then what contradicts another."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, get_args

from pgrun._durations import is_duration
from pgrun.errors import UsageError
from pgrun.run._storable import find_unstorable
from pgrun.run.terms import KeyScope, OnDuplicate, Terms

_LONGEST_KEY = 1000  # characters: an entry of an index holds 2700 bytes


def terms_of(options: Mapping[str, Any]) -> Terms | None:
    """The terms among the options of a run; None if nothing was said of any, so that it is a plain one.

    Raises:
        UsageError: One of them cannot be, or contradicts another.
    """
    said = {name: check(name, options[name]) for name, check in CHECKS.items() if options.get(name) is not None}
    if not said:
        return None
    if options.get("delay") and "due_at" in said:
        raise UsageError("delay= and due_at= say the same: give one of them")
    _check_key(said)
    if "key_period" in said:
        said["key_scope"] = "period"
    elif (
        said.get("on_duplicate", "keep") != "keep"
    ):  # nothing else can be replaced, and what runs must not swallow what is newer
        said.setdefault("key_scope", "pending")
    return Terms(**said)


def check_keys(keys: Iterable[object], count: int) -> list[str]:
    """The keys of so many runs, one for each; `UsageError` if they cannot be."""
    if isinstance(keys, str) or not isinstance(keys, Iterable):
        raise UsageError(f"keys={keys!r:.100}: one text for each call")
    checked = [_key(f"keys[{place}]", key) for place, key in enumerate(keys)]
    if len(checked) != count:
        raise UsageError(f"keys: {len(checked)} of them for {count} calls; there is one for each")
    return checked


def _check_key(said: Mapping[str, Any]) -> None:
    if "key_scope" in said and "key_period" in said:
        raise UsageError("key_scope= and key_period= both say how long: give one of them")
    if "max_delay" in said and said.get("on_duplicate") != "debounce":
        raise UsageError('max_delay= bounds on_duplicate="debounce"')


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{name}={value!r}: a text that is not empty")
    if reason := find_unstorable(value, name=name):
        raise UsageError(reason)
    return value


def _key(name: str, value: object) -> str:
    if len(key := _text(name, value)) > _LONGEST_KEY or len(key.encode()) > 2 * _LONGEST_KEY:
        raise UsageError(f"{name}: at most {_LONGEST_KEY} characters, not {len(key)}; a digest of it would do")
    return key


def _seconds(name: str, value: object) -> float:
    if not is_duration(value) or not value:
        raise UsageError(f"{name}={value!r}: seconds, more than 0, at most a century")
    assert isinstance(value, int | float)
    return value


def _moment(name: str, value: object) -> datetime:
    if not isinstance(value, datetime):
        raise UsageError(f"{name}={value!r}: a datetime with a time zone")
    if value.utcoffset() is None:
        raise UsageError(
            f"{name}={value!r}: a datetime without a time zone may mean any moment; give it one, such as datetime.UTC"
        )
    return value


def _seconds_or_moment(name: str, value: object) -> float | datetime:
    return _moment(name, value) if isinstance(value, datetime) else _seconds(name, value)


def _tags(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise UsageError(f"{name}={value!r:.100}: a list of texts")
    return tuple(dict.fromkeys(_text(f"{name}[{place}]", tag) for place, tag in enumerate(value)))


def _one_of(known: tuple[str, ...]) -> Callable[[str, object], str]:
    def check(name: str, value: object) -> str:
        if not isinstance(value, str) or value not in known:
            raise UsageError(f"{name}={value!r} is none of {', '.join(known)}")
        return value

    return check


CHECKS: dict[str, Callable[[str, object], Any]] = {
    "key": _key,
    "key_scope": _one_of(get_args(KeyScope)),
    "key_period": _seconds,
    "on_duplicate": _one_of(get_args(OnDuplicate)),
    "max_delay": _seconds,
    "due_at": _moment,
    "expires": _seconds_or_moment,
    "deadline": _seconds_or_moment,
    "timeout": _seconds,
    "tags": _tags,
    "conn": lambda _, value: value,
}
"""By name; ``conn`` is looked at where it is used, by those who know connections."""
