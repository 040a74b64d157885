"""PgBouncer in transaction mode before a database, where the program is installed."""

import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from support.netfault import Proxy
from support.processes import Process

BINARY = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

_CONFIG = """
[databases]
* = host=127.0.0.1 port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {directory}/users
pool_mode = transaction
default_pool_size = 5
ignore_startup_parameters = extra_float_digits,options
"""


@asynccontextmanager
async def pgbouncer(dsn: str) -> AsyncIterator[str]:
    """Runs a pooler; gives the conninfo of the same database through it."""
    assert BINARY
    # The server may listen on a socket only, in a place that the pooler's user cannot enter.
    with tempfile.TemporaryDirectory(prefix="pgrun-pgbouncer-") as name, Proxy(dsn) as server:
        port = _free_port()
        _configure(Path(name), dsn, port, server.port)
        os.chmod(name, 0o755)
        process = Process([BINARY, f"{name}/config"], {}, user=_unprivileged())
        try:
            await process.says("process up")
            yield make_conninfo(dsn, host="127.0.0.1", port=port)
        finally:
            process.kill()


def _configure(directory: Path, dsn: str, port: int, server_port: int) -> None:
    given = conninfo_to_dict(dsn)
    (directory / "users").write_text(f'"{given["user"]}" "{given.get("password", "")}"\n')
    config = _CONFIG.format(directory=directory, port=port, server_port=server_port)
    (directory / "config").write_text(config)


def _unprivileged() -> str | None:
    """PgBouncer refuses to run as root."""
    return None if os.geteuid() else pwd.getpwnam("nobody").pw_name


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
