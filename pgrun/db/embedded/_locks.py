"""Embedded Postgres: the file locks by which processes agree on who starts the server and who uses it.

`flock` and not a list of process ids: the kernel drops a lock when its owner ends, also after SIGKILL, and a process id
that was given to somebody else cannot be mistaken for a user.
"""

import os
import sys
import threading
import time
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_PAUSE = 0.005  # seconds between two attempts; flock has no time-out of its own


class FileLock:
    """One open lock file of this process; every instance is a holder of its own, also among threads.

    A forked child does not share the locks of its parent: they are closed in it. Otherwise a child that nobody thinks
    of would keep the server alive, or keep the start locked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _forking:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            _open_locks.add(self)

    def __repr__(self) -> str:
        return f"FileLock({str(self.path)!r}, {'open' if self.is_open else 'closed'})"

    @property
    def is_open(self) -> bool:
        """Whether this process still has the file, and with it the lock if it was taken."""
        return self._fd >= 0

    def fileno(self) -> int:
        """Return the descriptor, for a child that must hold the lock as long as it lives."""
        return self._fd

    def take_now(self, *, shared: bool = False) -> bool:
        """Take the lock if it is free; False if somebody else has it."""
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(self._fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def take(self, *, shared: bool = False, deadline: float) -> None:
        """Wait for the lock.

        Raises:
            TimeoutError: It was not free before `deadline` (monotonic seconds).
        """
        while not self.take_now(shared=shared):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.path} stayed locked")
            time.sleep(_PAUSE)

    def close(self) -> None:
        """Give the lock up; closing twice is fine."""
        with _forking:
            self._close()

    def _close(self) -> None:
        _open_locks.discard(self)
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def is_locked(path: Path) -> bool:
    """Tell whether somebody holds the lock file exclusively."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        return not lock.take_now(shared=True)
    finally:
        lock.close()


# Held while a lock file is opened or closed, and during a fork, so that no child is born with a lock it does not know.
_forking = threading.Lock()
_open_locks: set[FileLock] = set()


def _forget_parents_locks() -> None:
    for lock in list(_open_locks):
        lock._close()  # closes the child's copy only; the parent's lock stays
    _forking.release()


if sys.platform != "win32":
    os.register_at_fork(before=_forking.acquire, after_in_parent=_forking.release, after_in_child=_forget_parents_locks)
