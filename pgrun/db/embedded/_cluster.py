"""Embedded Postgres: the data directory, the socket directory and the command that serves them."""

import hashlib
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pgrun.db.embedded._account import Account
from pgrun.errors import DatabaseError, UsageError

PORT = 5432  # a part of the socket's file name only: there is no TCP
_SOCKET_NAME = f"/.s.PGSQL.{PORT}.lock"
_LONGEST_SOCKET = 103  # bytes of a whole path; what the strictest system allows

_DEFAULTS = {"max_connections": "200", "cluster_name": "pgrun"}


def data_version(data: Path) -> int | None:
    """Return the major version of Postgres that made the data, None if there is no data yet."""
    if not data.exists():
        return None
    try:
        return int((data / "PG_VERSION").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise UsageError(f"{data} exists, but is no Postgres data directory; use another directory") from None


def create_data(data: Path, binaries: Path, account: Account, *, boot_lock: int) -> None:
    """Run initdb and put its result in place in one step, so that a half-made directory is never taken for data.

    Args:
        data: Where the data will be; does not exist yet.
        binaries: Directory of initdb.
        account: Who will own the data.
        boot_lock: Descriptor of boot.lock, which initdb inherits: if this process is killed now, the next starter waits
            until the orphan has ended before it clears away what it left.
    """
    fresh = data.with_name("data.new")
    done = _initdb(fresh, binaries, account, boot_lock, locale="C.UTF-8")
    if done.returncode != 0 and "locale" in done.stdout:  # not every system has that one
        done = _initdb(fresh, binaries, account, boot_lock, locale="C")
    if done.returncode != 0:
        raise DatabaseError(f"initdb failed in {fresh}:\n{done.stdout.strip()}")
    fresh.rename(data)
    _sync_directory(data.parent)


def _initdb(
    fresh: Path, binaries: Path, account: Account, boot_lock: int, *, locale: str
) -> subprocess.CompletedProcess[str]:
    if fresh.exists():  # left by a starter that was killed
        shutil.rmtree(fresh)
    fresh.mkdir(mode=0o700)
    account.own(fresh)
    options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", f"--locale={locale}"]
    return account.run([f"{binaries}/initdb", "-D", str(fresh), *options], keep=[boot_lock])


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def socket_directory(directory: Path) -> Path:
    """Return where clients of this directory connect: a function of its path alone, so that all processes agree."""
    inside = directory / "socket"
    # Plain characters only: a comma or a quote would need escaping in postgres's list and in libpq's host.
    if re.fullmatch(r"[\w./+-]+", str(inside), re.ASCII) and len(str(inside) + _SOCKET_NAME) <= _LONGEST_SOCKET:
        return inside
    # /tmp and not $TMPDIR, which may differ between two processes.
    return Path("/tmp", f"pgrun-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]}")


def create_socket_directory(path: Path, account: Account) -> None:
    """Make sure that the directory exists and that only the account (and root) can enter it.

    That is what makes `trust` authentication safe: nobody else can open the socket.

    Raises:
        UsageError: Somebody else has put something in its place.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), account.owner):
        raise UsageError(f"{path} should be the socket directory of an embedded Postgres, but belongs to somebody else")
    path.chmod(0o700)
    account.own(path)


def server_command(data: Path, sockets: Path, binaries: Path, settings: Mapping[str, str]) -> list[str]:
    """Return the command line of postgres; `settings` override defaults, but not where clients find it."""
    fixed = {
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_directories": str(sockets),
        "unix_socket_permissions": "0700",
    }
    options = (_DEFAULTS | dict(settings) | fixed).items()
    return [
        f"{binaries}/postgres",
        "-D",
        str(data),
        *(word for name, value in options for word in ("-c", f"{name}={value}")),
    ]
