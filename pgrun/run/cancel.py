"""Cancelling by the id alone, for programs that hold no agent; also a run that they are only about to submit."""

from pgrun import _hosting
from pgrun._ids import check_run_id
from pgrun._sync import run_sync, start_sync
from pgrun.errors import UsageError

_unwanted: set[str] = set()


async def acancel_run(run_id: str) -> bool:
    """Cancels a run, wherever an agent of this process stores its runs.

    Returns:
        Whether it is cancelled or being cancelled. False if it had ended, or if there is no such run yet: should this process
        submit one with that id later, it will be cancelled before it starts.
    """
    _unwanted.add(check_run_id(run_id))
    cancelled = await _hosting.cancel_run(run_id)
    if cancelled is not None:
        _unwanted.discard(run_id)
    return bool(cancelled)


def cancel_run(run_id: str) -> bool:
    """The same for code without an event loop; called inside one it does not wait, and returns False."""
    _unwanted.add(check_run_id(run_id))
    try:
        return run_sync(acancel_run, run_id)
    except UsageError:
        start_sync(acancel_run, run_id)
        return False


def is_unwanted(run_id: str) -> bool:
    """Whether a run that is about to be submitted was cancelled before."""
    return run_id in _unwanted
