"""The terms of a run that is more than a plain one: its key, its moments, its tags, and whose transaction it is stored in."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

KeyScope = Literal["pending", "unfinished", "ever"]
"""How long a run holds its key: until it is started for the first time, until it has ended, or as long as its row is kept."""

OnDuplicate = Literal["keep", "replace", "debounce"]
"""What a submission does whose key is held by a run that nobody has started yet.

========  ==============================================================================================================
keep      nothing: that run stays as it is
replace   that run gets the newer input and options, when it is due among them
debounce  the same; but its start is never put off by more than `max_delay` since it was first submitted
========  ==============================================================================================================
"""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a run was submitted with beside input, queue, session and the like; see `RunOptions`. None: nothing was said."""

    key: str | None = None
    key_scope: str | None = None
    """Also ``"period"``, with `key_period`."""
    key_period: float | None = None
    on_duplicate: OnDuplicate = "keep"
    max_delay: float | None = None
    due_at: datetime | None = None
    expires: float | datetime | None = None
    deadline: float | datetime | None = None
    timeout: float | None = None
    tags: tuple[str, ...] = ()
    conn: Any = None

    @property
    def said(self) -> list[str]:
        """The names of the options that were given."""
        return [name for name, value in vars(self).items() if value != getattr(Terms, name)]

    def columns(self) -> dict[str, Any]:
        """As `submit_runs.sql` takes them, JSON data; a key is not among them, for each run has its own."""
        said = {
            **{"key_scope": self.key_scope, "key_period": self.key_period},
            **{"on_duplicate": self.on_duplicate, "max_delay": self.max_delay, "due_at": self.due_at},
            **_moment("expires", self.expires),
            **_moment("deadline", self.deadline),
            **{"timeout": self.timeout, "tags": [*self.tags] or None, "wakes": self.conn is not None},
        }
        return {name: value for name, value in said.items() if value is not None}


def _moment(name: str, value: float | datetime | None) -> dict[str, Any]:
    return {f"{name}_at" if isinstance(value, datetime) else name: value}
