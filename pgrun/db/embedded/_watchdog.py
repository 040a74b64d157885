"""Embedded Postgres: the process that owns the server. It runs as a script of its own, with the standard library only.

Started by `_launch`, which passes a JSON object as the only argument. It leaves the session of its starter, takes
watchdog.lock, runs postgres as its child, starts it again when it ends by itself, and stops it when it gets users.lock,
that is, when nobody uses the server any more. It keeps users.lock until it has ended: whoever comes meanwhile waits and
then starts afresh, and never meets a server that is about to go.

As the parent it reaps postgres at once. With pg_ctl that would be the business of process 1, and until the dead
postmaster is reaped a new one refuses to start.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

_PULSE = 0.1  # seconds between two looks at the child and at users.lock, which cannot be waited for together
_STOP_PATIENCE = 30.0  # seconds a fast shutdown may take before an immediate one
_LONG_LIFE = 10.0  # seconds after which a crash counts as the first again
_TRIES = 5  # starts in a row that fail before it gives up ...
_TRIES_ONCE_READY = 30  # ... and if it had ever been ready: a busy backend may outlive its postmaster for a while


class Watchdog:
    """One server directory and the postgres that is running in it."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._directory = Path(spec["directory"])
        self._data = self._directory / "data"
        self._sockets = Path(spec["sockets"])
        self._command: list[str] = spec["command"]
        self._uid: int | None = spec["uid"]
        self._gid: int | None = spec["gid"]
        self._users = _open(self._directory / "users.lock")
        self._server = _open(self._directory / "server.lock")
        self._orphan = _noted(self._server)
        _note(self._server, 0)  # who pings now must not take an orphan that is about to stop for the server
        self._told_to_stop = False
        self._was_ready = False
        self._failures = 0

    def run(self) -> None:
        """Serve until nobody uses the server, SIGTERM comes, or it cannot be started."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        self._await_predecessor()
        self._remove_stale_pid_files()
        while not self._is_over() and self._may_try_again():
            self._serve_once()
        with contextlib.suppress(OSError):
            self._sockets.rmdir()  # the one under /tmp would stay for ever

    def _on_sigterm(self, *_: object) -> None:
        self._told_to_stop = True

    def _is_over(self) -> bool:
        return self._told_to_stop or _take_now(self._users)

    def _await_predecessor(self) -> None:
        """Wait until every process of an earlier server is gone; its watchdog was killed.

        Where the kernel has not told the orphan to stop (see `_stop_with_parent`), do it here.
        """
        while not _take_now(self._server) and not self._is_over():
            if _is_server(self._orphan, self._data):
                with contextlib.suppress(OSError):
                    os.kill(self._orphan, signal.SIGINT)
            time.sleep(_PULSE)

    def _serve_once(self) -> None:
        """Run postgres from its start to its end."""
        started = time.monotonic()
        postgres = self._start()
        while postgres.poll() is None:
            if self._is_over():
                _stop(postgres)
                return
            time.sleep(_PULSE)
        _note(self._server, 0)
        self._was_ready |= postgres.returncode == 0 or self._says_ready(postgres.pid)
        self._judge(postgres.returncode, time.monotonic() - started)

    def _start(self) -> subprocess.Popen[bytes]:
        postgres = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            pass_fds=[self._server],
            user=self._uid,
            group=self._gid,
            extra_groups=None if self._uid is None else [],
            preexec_fn=_stop_with_parent,
        )
        _note(self._server, postgres.pid)
        return postgres

    def _judge(self, status: int, lived: float) -> None:
        """Count failed starts and crashes in a row; a shutdown that somebody asked for while users are there is none."""
        if status == 0:
            self._failures = 0
            return
        self._failures = 1 if lived > _LONG_LIFE else self._failures + 1
        _log(f"postgres ended with status {status} after {lived:.1f} s")

    def _may_try_again(self) -> bool:
        """Pause as long as the failures so far advise: not at all after the first; False when it makes no sense."""
        if self._failures >= (_TRIES_ONCE_READY if self._was_ready else _TRIES):
            _log("giving up")
            return False
        if self._failures > 1:
            time.sleep(min(0.1 * 2 ** (self._failures - 2), 2.0))
        return True

    def _says_ready(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"
        return False

    def _remove_stale_pid_files(self) -> None:
        """Remove the pid files of a dead server whose number belongs to another process now.

        Typical after the restart of a container: the numbers begin anew, postgres finds a live process of its own user
        under the old number and refuses to start. We have just got server.lock, so nothing that pgrun started is left; a
        server that somebody started by hand works in the data directory and is spared. All other cases postgres judges
        better: it also looks for backends that outlived their postmaster.
        """
        for path in (self._data / "postmaster.pid", *self._sockets.glob(".s.PGSQL.*.lock")):
            with contextlib.suppress(FileNotFoundError):
                first = path.read_text().partition("\n")[0].strip()
                if not first.isdigit() or (_exists(int(first)) and not _is_server(int(first), self._data)):
                    path.unlink()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # of another user, but there is one
    return True


def _is_server(pid: int, data: Path) -> bool:
    """Tell whether the process is a postmaster on the data directory."""
    if sys.platform == "linux":
        try:
            return os.path.samefile(f"/proc/{pid}/cwd", data)  # a postmaster changes to its data directory
        except OSError:  # gone, a zombie, or of another user
            return False
    else:
        ps = subprocess.run(["ps", "-o", "comm=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return "postgres" in ps.stdout


def _stop(postgres: subprocess.Popen[bytes]) -> None:
    postgres.send_signal(signal.SIGINT)
    try:
        postgres.wait(_STOP_PATIENCE)
    except subprocess.TimeoutExpired:
        postgres.send_signal(signal.SIGQUIT)
        postgres.wait()


def _stop_with_parent() -> None:
    """Have the kernel ask postgres to stop when the watchdog is killed; runs in the child before exec."""
    if _libc is not None:
        _libc.prctl(1, int(signal.SIGINT))  # 1: PR_SET_PDEATHSIG


def _load_libc() -> Any:
    with contextlib.suppress(ImportError, OSError):  # a Python without libffi
        import ctypes

        return ctypes.CDLL(None) if sys.platform == "linux" else None
    return None


_libc = _load_libc()


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _take_now(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _note(fd: int, pid: int) -> None:
    os.pwrite(fd, f"{pid:<19}\n".encode(), 0)  # of fixed width, so that no reader sees half of it


def _noted(fd: int) -> int:
    return int(os.pread(fd, 20, 0) or b"0")


def _log(message: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} pgrun watchdog: {message}\n")
    sys.stderr.flush()


def _detach() -> None:
    """Become nobody's child; the starter gets its exit status at once and never has to reap us."""
    if os.fork() > 0:
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which postgres would inherit
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o077)


def _main() -> NoReturn:
    spec = json.loads(sys.argv[1])
    lock = _open(Path(spec["directory"], "watchdog.lock"))
    if not _take_now(lock):
        sys.exit(os.EX_TEMPFAIL)  # another watchdog has the directory
    watchdog = Watchdog(spec)
    _detach()  # with the lock: whoever waits for the starter's exit status finds it held
    _note(lock, os.getpid())
    watchdog.run()
    sys.exit(0)


if __name__ == "__main__":
    _main()
