"""Embedded Postgres: the operating-system user that runs it.

Postgres refuses to run as root, and initdb needs a user with a name. An ordinary user runs it as himself; root hands it
to an unprivileged account, or, where that account reaches neither the directory nor the binaries, to itself under
another number inside a user namespace. Modes and owners above the given directory are never changed.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgrun.errors import UsageError

if sys.platform != "win32":
    import pwd


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs initdb and postgres.

    Attributes:
        name: For messages.
        uid: What to change to, or None to stay.
        gid: Likewise.
        prefix: Command in front of every command: enters the user namespace.
    """

    name: str
    uid: int | None = None
    gid: int | None = None
    prefix: tuple[str, ...] = ()

    @property
    def owner(self) -> int:
        """The uid that owns the files of this account."""
        return os.geteuid() if self.uid is None else self.uid

    def own(self, path: Path) -> None:
        """Give the file to the account; a symbolic link is not followed."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def run(self, command: Sequence[str], *, keep: Sequence[int] = ()) -> subprocess.CompletedProcess[str]:
        """Run a command to its end as this account; its output is captured, descriptors in `keep` stay open in it."""
        return subprocess.run(
            [*self.prefix, *command],
            cwd="/",  # the caller's own may be out of the account's reach
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            pass_fds=keep,
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
        )


def clean_environment() -> dict[str, str]:
    """What the server may know of the environment of its first user: not his secrets, PG… variables or language."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")
    return {"PATH": os.defpath, "LC_ALL": "C"} | {name: os.environ[name] for name in kept if name in os.environ}


def choose_account(directory: Path, data: Path, binaries: Path) -> Account:
    """Return an account that can run `binaries` on data below `directory`; existing data decides by its owner.

    Raises:
        UsageError: There is none; the message says what stands in the way.
    """
    if os.geteuid() != 0:
        return Account(name="you")
    obstacles = []
    for account in _accounts_for(data):
        probe = account.run(
            ["/bin/sh", "-c", 'cd "$1" && "$2" --version', "sh", str(directory), f"{binaries}/postgres"]
        )
        if probe.returncode == 0:
            return account
        obstacles.append(f"{account.name}: {probe.stdout.strip() or probe.returncode}")
    raise UsageError(
        f"root cannot run Postgres itself, and no other user can run it in {directory} ({'; '.join(obstacles)}). "
        "Give a directory that such a user can reach, like embedded:/var/lib/pgrun, with binaries that he can execute, "
        "or name a user in PGRUN_PG_USER."
    )


def _accounts_for(data: Path) -> Iterator[Account]:
    owner = data.stat().st_uid if data.exists() else None
    if owner:
        yield Account(name=f"uid {owner}, owner of the data", uid=owner, gid=data.stat().st_gid)
        return
    named = list(_named_accounts())
    if owner is None:
        yield from named
    # Data that belongs to root was made in a namespace and can only be used in one. The number inside must have a name.
    if named and (unshare := shutil.which("unshare")):
        number = f"--map-user={named[0].uid}", f"--map-group={named[0].gid}"
        yield Account(name="root in a user namespace", prefix=(unshare, "--user", *number, "--"))


def _named_accounts() -> Iterator[Account]:
    chosen = os.environ.get("PGRUN_PG_USER")
    for name in [chosen] if chosen else ["postgres", "nobody"]:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            if chosen:
                raise UsageError(f"PGRUN_PG_USER names {name!r}, but there is no such user") from None
            continue
        yield Account(name=f"user {name}", uid=entry.pw_uid, gid=entry.pw_gid)
