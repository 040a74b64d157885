"""Embedded Postgres: the object that a process holds while it uses a private server."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from pgrun.db.embedded import _cluster, _launch
from pgrun.db.embedded._binaries import find_binaries
from pgrun.db.embedded._locks import FileLock, is_locked
from pgrun.errors import DatabaseError, DatabaseUnavailable, UsageError

_SHORTEST_PAUSE = 0.01  # seconds between two looks at a server that is starting ...
_LONGEST_PAUSE = 0.2  # ... growing to this: every look at a recovering server leaves a line in its log


class EmbeddedPostgres:
    """A private Postgres in a directory, shared by all processes that name the directory, gone when the last one ends.

    Every object is a user of its own, until `release` or the end of the process, however it ends. Its methods may be
    called from any thread; they block, so an asynchronous program calls them in a worker thread. A forked child is no
    user until it calls `acquire` itself.

    Args:
        directory: Where data, log and locks live; created if missing. None is one directory per user:
            $XDG_DATA_HOME/pgrun/postgres, for root /var/lib/pgrun.
        settings: Postgres settings by name. They count for the user that starts the server; who joins a running one gets
            it as it is.

    Raises:
        UsageError: On Windows, which has neither the locks nor the private sockets that this is built on.
    """

    def __init__(self, directory: Path | str | None = None, *, settings: Mapping[str, str] | None = None) -> None:
        if sys.platform == "win32":
            raise UsageError("an embedded: database needs a POSIX system; give the URL of a database")
        try:
            self.directory = Path(directory or _default_directory()).expanduser().resolve()
        except RuntimeError as error:  # ~ of a user that does not exist
            raise UsageError(f"{directory}: {error}") from error
        self.settings = dict(settings or {})
        self._use: FileLock | None = None

    def __repr__(self) -> str:
        return f"EmbeddedPostgres({str(self.directory)!r}, acquired={self.is_acquired})"

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def conninfo(self) -> str:
        """How libpq reaches the server: through its private socket, without password, as its superuser."""
        sockets = _cluster.socket_directory(self.directory)  # consists of characters that need no quoting
        return f"host={sockets} port={_cluster.PORT} user=postgres dbname=postgres"

    @property
    def bin(self) -> Path:
        """Directory of the Postgres programs in use: `postgres`, and usually `psql`."""
        data = self.directory / "data"
        return find_binaries(major=_cluster.data_version(data), wanted_by=data)

    @property
    def is_acquired(self) -> bool:
        """Whether this process counts as a user through this object."""
        return self._use is not None and self._use.is_open

    @property
    def postmaster_pid(self) -> int | None:
        """Process id of the running server, None if there is none."""
        if not is_locked(self.directory / "server.lock"):
            return None
        return int((self.directory / "server.lock").read_text() or 0) or None

    def acquire(self, *, timeout: float = 60.0) -> None:
        """Make sure that the server runs, and keep it running until `release` or the end of this process.

        Calling it again is fine, and is the way to bring the server back after somebody has stopped its watchdog.

        Args:
            timeout: Seconds to wait for other starters, and for a server that recovers from a crash.

        Raises:
            UsageError: No binaries, a directory that cannot be used, or no user to run Postgres as.
            DatabaseUnavailable: It was not ready in time.
            DatabaseError: It did not start; the message carries the end of its log.
        """
        deadline = time.monotonic() + timeout
        with _operating_system_errors(self.directory):
            _launch.make_directory(self.directory)
            boot = FileLock(self.directory / "boot.lock")
            try:
                boot.take(deadline=deadline)  # also keeps the threads of this process apart
                self._register_and_start(boot, deadline)
            finally:
                boot.close()

    def release(self) -> None:
        """Stop using the server; it is shut down in the background if nobody else does."""
        use, self._use = self._use, None
        if use is not None:
            use.close()

    def restart(self, mode: Literal["fast", "immediate"] = "fast", *, timeout: float = 60.0) -> None:
        """Stop the server and wait until it is back; users stay registered, their connections break.

        Args:
            mode: "fast" shuts down in order, "immediate" leaves it to crash recovery.
            timeout: Seconds until it must be back.
        """
        deadline = time.monotonic() + timeout
        self.acquire(timeout=timeout)
        before = self.postmaster_pid
        if before is not None:
            with suppress(ProcessLookupError):  # it has just crashed: as good
                os.kill(before, signal.SIGINT if mode == "fast" else signal.SIGQUIT)
        pauses = self._pauses(deadline)
        while self.postmaster_pid == before or not self._is_running():
            next(pauses)

    def _register_and_start(self, boot: FileLock, deadline: float) -> None:
        if self.is_acquired:
            self._ensure_running(boot, deadline)
            return
        use = FileLock(self.directory / "users.lock")
        try:
            use.take(shared=True, deadline=deadline)  # waits here while a watchdog stops the server
            self._ensure_running(boot, deadline)
        except BaseException:
            use.close()
            raise
        self._use = use

    def _ensure_running(self, boot: FileLock, deadline: float) -> None:
        launched = False
        pauses = self._pauses(deadline)
        while not self._is_running():
            if is_locked(self.directory / "watchdog.lock"):
                next(pauses)
            elif launched:
                raise DatabaseError(f"Postgres in {self.directory} did not start:\n{_launch.log_tail(self.directory)}")
            else:
                launched = _launch.launch(self.directory, self.settings, boot_lock=boot.fileno())

    def _is_running(self) -> bool:
        # The number alone would not do: it may belong to another process by now. Nor would the answer: it may come from
        # a server that stops because its watchdog was killed.
        watched = is_locked(self.directory / "watchdog.lock") and self.postmaster_pid is not None
        return watched and _answers(self.conninfo)

    def _pauses(self, deadline: float) -> Iterator[None]:
        pause = _SHORTEST_PAUSE
        while time.monotonic() < deadline:
            time.sleep(pause)
            yield
            pause = min(pause * 1.2, _LONGEST_PAUSE)
        tail = _launch.log_tail(self.directory)
        raise DatabaseUnavailable(f"Postgres in {self.directory} was not ready in time:\n{tail}")


def embedded_url(url: str, *, settings: Mapping[str, str] | None = None) -> EmbeddedPostgres:
    """Return the server that an ``embedded:`` URL stands for.

    Args:
        url: ``embedded:`` for the directory of the current user, ``embedded:/some/dir``, ``embedded:~/dir``, or
            ``embedded:dir`` relative to the working directory of this moment.
        settings: As in `EmbeddedPostgres`.

    Raises:
        UsageError: It is not such a URL.
    """
    scheme, colon, path = url.partition(":")
    if scheme != "embedded" or not colon:
        raise UsageError(f"{url!r} is no embedded: URL")
    if path.startswith("//"):  # embedded:///dir is fine, but what would embedded://dir mean?
        path = path.removeprefix("//")
        if not path.startswith("/"):
            raise UsageError(f"{url!r} is ambiguous; write embedded:/{path} or embedded:{path}")
    return EmbeddedPostgres(path or None, settings=settings)


def _default_directory() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/pgrun")  # not in root's home, which the user that runs Postgres cannot enter
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "pgrun" / "postgres"


def _answers(conninfo: str) -> bool:
    from psycopg import pq  # here: a program that only parses URLs need not load libpq

    # Unlike a failed connect this tells a server that has no connection left from one that is not there.
    return pq.PGconn.ping(f"{conninfo} connect_timeout=2".encode()) == pq.Ping.OK


@contextmanager
def _operating_system_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise DatabaseUnavailable(f"Postgres in {directory} was not ready in time: {error}") from error
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"an embedded Postgres cannot use {directory}: {error}") from error
    except OSError as error:
        raise DatabaseError(f"an embedded Postgres failed in {directory}: {error}") from error
