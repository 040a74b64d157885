"""Ids that sort by the time they were made: UUIDv7 (RFC 9562), like `new_run_id()` in SQL."""

import os
import time
from uuid import UUID

from pgrun.errors import UsageError

_VARIANT = {digit: "89ab"[int(digit, 16) & 0x3] for digit in "0123456789abcdef"}  # of RFC 9562


def new_run_id() -> str:
    """A new UUIDv7 in its text form: 48 bits of milliseconds, 74 random bits. Python has `uuid.uuid7` since 3.14."""
    return new_run_ids(1)[0]


def new_run_ids(count: int) -> list[str]:
    """So many of one moment, in their order."""
    milliseconds, random = f"{time.time_ns() // 1_000_000:012x}", os.urandom(10 * count).hex()
    head = f"{milliseconds[:8]}-{milliseconds[8:]}-7"  # the version
    return sorted(
        f"{head}{random[at : at + 3]}-{_VARIANT[random[at + 3]]}{random[at + 4 : at + 7]}-{random[at + 7 : at + 19]}"
        for at in range(0, 20 * count, 20)
    )


def check_run_id(run_id: object) -> str:
    """The id in its canonical form; `UsageError` if it cannot be one."""
    try:
        return str(UUID(str(run_id)))
    except ValueError:
        raise UsageError(f"run_id {run_id!r} is not a UUID") from None
