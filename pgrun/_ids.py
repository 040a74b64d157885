"""Ids that sort by the time they were made: UUIDv7 (RFC 9562), like `new_run_id()` in SQL."""

import os
import time
from uuid import UUID

from pgrun.errors import UsageError


def new_run_id() -> str:
    """A new UUIDv7 in its text form: 48 bits of milliseconds, 74 random bits. Python has `uuid.uuid7` since 3.14."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10))
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76  # version 7
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant of RFC 9562
    return str(UUID(int=value))


def check_run_id(run_id: object) -> str:
    """The id in its canonical form; `UsageError` if it cannot be one."""
    try:
        return str(UUID(str(run_id)))
    except ValueError:
        raise UsageError(f"run_id {run_id!r} is not a UUID") from None
