"""Functions for processes of their own, which find them here."""

import os
import time
from pathlib import Path

from pgrun import Discard


def square(number: int) -> tuple[int, int]:
    """Also the process that has computed it."""
    return number * number, os.getpid()


def fail(message: str) -> None:
    raise LookupError(message)


def give_up(reason: str) -> None:
    raise Discard(reason)


def die() -> None:
    os._exit(7)


def hang(mark: str) -> None:
    """Says who hangs."""
    Path(mark).write_text(str(os.getpid()), encoding="utf-8")
    time.sleep(60)
