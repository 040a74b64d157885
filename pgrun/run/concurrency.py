"""How many background runs a process executes at once that executes them itself; daemons have ``--concurrency``."""

from pgrun.errors import UsageError

_most = 50


def set_background_max_concurrency(runs: int) -> None:
    """Sets it, for workers that start after this call: they do with the first run that is submitted. Further runs wait, pending.

    Raises:
        UsageError: It is less than one.
    """
    global _most
    if not isinstance(runs, int) or runs < 1:
        raise UsageError(f"set_background_max_concurrency({runs!r}): at least one run at a time")
    _most = runs


def get_background_max_concurrency() -> int:
    """Default: 50."""
    return _most
