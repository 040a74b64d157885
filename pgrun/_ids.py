"""Ids that sort by the time they were made: UUIDv7 (RFC 9562), like `new_run_id()` in SQL."""

import os
import time
from uuid import UUID

from pgrun.errors import UsageError


def new_run_id() -> str:
    """A new UUIDv7 in its text form: 48 bits of milliseconds, 74 random bits. Python has `uuid.uuid7` since 3.14."""
    milliseconds, random = f"{time.time_ns() // 1_000_000:012x}", os.urandom(10).hex()
    variant = "89ab"[int(random[3], 16) & 0x3]  # of RFC 9562; the 7 is the version
    return f"{milliseconds[:8]}-{milliseconds[8:]}-7{random[:3]}-{variant}{random[4:7]}-{random[7:19]}"


def check_run_id(run_id: object) -> str:
    """The id in its canonical form; `UsageError` if it cannot be one."""
    try:
        return str(UUID(str(run_id)))
    except ValueError:
        raise UsageError(f"run_id {run_id!r} is not a UUID") from None
