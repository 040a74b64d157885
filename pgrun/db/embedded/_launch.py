"""Embedded Postgres: one start, from an empty directory to a running watchdog. The caller holds boot.lock."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pgrun.db.embedded import _cluster
from pgrun.db.embedded._account import Account, choose_account, clean_environment
from pgrun.db.embedded._binaries import find_binaries
from pgrun.errors import DatabaseError, UsageError

_WATCHDOG = Path(__file__).with_name("_watchdog.py")  # a script: its own process has no use for pgrun
_LARGEST_LOG = 10_000_000  # bytes; looked at before a start only
_TAIL = 4_000  # bytes of log in an error message


def make_directory(directory: Path) -> None:
    """Create the directory if it is missing: private, but for root open to be passed through by the server's user."""
    if (directory / "PG_VERSION").exists():
        raise UsageError(f"{directory} is itself a Postgres data directory; name one that pgrun may keep its own in")
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        if not directory.is_dir():
            raise
        return
    directory.chmod(0o711 if os.geteuid() == 0 else 0o700)


def launch(directory: Path, settings: Mapping[str, str], *, boot_lock: int) -> bool:
    """Make the data if it is missing and start a watchdog, which starts postgres.

    Returns:
        False if another watchdog was quicker, started by somebody who was killed before it came up.
    """
    data = directory / "data"
    binaries = find_binaries(major=_cluster.data_version(data), wanted_by=data)
    account = choose_account(directory, data, binaries)
    sockets = _cluster.socket_directory(directory)
    _cluster.create_socket_directory(sockets, account)
    if not data.exists():
        _cluster.create_data(data, binaries, account, boot_lock=boot_lock)
    command = [*account.prefix, *_cluster.server_command(data, sockets, binaries, settings)]
    return _start_watchdog(directory, sockets, command, account)


def _start_watchdog(directory: Path, sockets: Path, command: list[str], account: Account) -> bool:
    spec = {
        "directory": str(directory),
        "sockets": str(sockets),
        "command": command,
        "uid": account.uid,
        "gid": account.gid,
    }
    log = _open_log(directory)
    try:
        done = subprocess.run(
            # Isolated and without site: it needs the standard library only, and starts in 20 ms.
            [_python(), "-I", "-S", str(_WATCHDOG), json.dumps(spec)],
            cwd="/",
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # out of reach of Ctrl-C and of a closing terminal
            check=False,
        )
    finally:
        os.close(log)
    if done.returncode not in (0, os.EX_TEMPFAIL):
        raise DatabaseError(f"the watchdog of Postgres in {directory} did not start:\n{log_tail(directory)}")
    return done.returncode == 0


def _python() -> str:
    if "python" in Path(sys.executable or "").name:
        return sys.executable
    return str(Path(sys.base_prefix, "bin", "python3"))  # inside an application server that embeds Python


def _open_log(directory: Path) -> int:
    path = directory / "server.log"
    if path.exists() and path.stat().st_size > _LARGEST_LOG:
        path.replace(path.with_name("server.log.1"))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def log_tail(directory: Path) -> str:
    """Return the last lines of the server's log."""
    try:
        with (directory / "server.log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL))
            return log.read().decode(errors="replace").strip()
    except OSError as error:
        return f"({error})"
