"""HTTP on a socket: `server` runs this in its own thread, and every request goes from here to `application`.

uvicorn's start-up and protocol are used, its run loop is not: that one looks ten times a second whether to stop, waits
for open calls to end, takes the process's signals and writes to its logs.
"""

import logging
import socket
from collections.abc import Callable
from typing import Any

import anyio
import uvicorn
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HOST = "127.0.0.1"

_logger = logging.getLogger("pgrun.testing")
# Clients keep idle connections for seconds. If the server closed one first, a call that is just being sent would fail.
_KEEP_ALIVE = 3600
_CLOSING_TIME = 1.0


class _Protocol(H11Protocol):
    """uvicorn's protocol, silent, and with a way for the endpoint to cut the connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _logger
        self.access_log = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.app_state = {"cut": self._cut}  # shows up as scope["state"]

    def _cut(self) -> None:
        self.cycle.disconnected = True  # or an answer that never begins would be logged as an error
        self.transport.abort()


def listen(port: int) -> socket.socket:
    """A socket on the loopback; port 0 takes a free one."""
    # The protocol is named although it is the default: asyncio turns Nagle's algorithm off only where it reads TCP here,
    # and without that every answer takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A server that is started again wants its old port although the last connections there are not forgotten yet.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
    except OSError:
        listener.close()
        raise
    return listener


async def serve(
    app: ASGIApp,
    listener: socket.socket,
    closing: Callable[[], None],
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; then call `closing` and cut every connection."""
    server = uvicorn.Server(_config(app))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=[listener])
    task_status.started()
    try:
        await anyio.sleep_forever()
    finally:
        closing()
        with anyio.CancelScope(shield=True):
            await _close(server)


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
    )


async def _close(server: uvicorn.Server) -> None:
    for listening in server.servers:
        listening.close()
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    # Each open call now sees its client gone, which takes a few turns of the event loop; uvicorn keeps no event for it.
    with anyio.move_on_after(_CLOSING_TIME):
        while server.server_state.connections or server.server_state.tasks:
            await checkpoint()
