"""A network that fails on command: a TCP proxy before Postgres, with a switch for everything that can happen on the way.

It runs in a thread of its own, so that no blocked event loop keeps it from forwarding, and serves processes as well. Every
switch has taken effect when its method returns.
"""

import asyncio
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import Self

from anyio.from_thread import start_blocking_portal
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from support.wire import NOTIFICATION, READY, Messages, Statements

_CHUNK = 65536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER for no time: closing sends RST instead of FIN


class Proxy:
    """Forwards to the server of a conninfo, until a test switches something.

    Attributes:
        conninfo: The same database, through the proxy.
        latency: Seconds that everything takes longer, in each direction.
        swallows: Whether notifications are left out of what the server sends.
        statements: Names of pgrun's statements as they came from clients.
        lost: Names of those whose answer has been lost, see `lose_answer`.
        port: Where it listens on 127.0.0.1.
    """

    def __init__(self, dsn: str, *, port: int = 0) -> None:
        self._dsn = dsn
        self.port = port
        self._links: set[_Link] = set()
        self._to_lose: list[str] = []
        self.latency = 0.0
        self.swallows = False
        self.statements: list[str] = []
        self.lost: list[str] = []

    def __enter__(self) -> Self:
        self._thread = start_blocking_portal(name="pgrun-test-proxy")
        self.portal = self._thread.__enter__()
        self._gate = self.portal.call(_open_gate)
        self.accept()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        self.portal.call(self._wait_for_links)
        self._thread.__exit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"<Proxy on port {self.port}, {len(self._links)} connections, {len(self.statements)} statements>"

    @property
    def conninfo(self) -> str:
        # Without these two a client begins with a question of one byte, which is no message of the protocol.
        return make_conninfo(self._dsn, host="127.0.0.1", port=self.port, sslmode="disable", gssencmode="disable")

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._links)

    def cut(self) -> None:
        """Reset every connection."""
        self.portal.call(self._reset_links)

    def refuse(self) -> None:
        """Reset every connection and accept none any more."""
        self.portal.call(self._unlisten)

    def accept(self) -> None:
        """Accept connections, after `refuse` on the same port again."""
        self.portal.call(self._listen)

    def black_hole(self) -> None:
        """Accept every connection and take every byte, but forward nothing in either direction until `heal`."""
        self.portal.call(self._gate.clear)

    def heal(self) -> None:
        """Forward again; first what was taken meanwhile, as after a partition during which packets were sent again."""
        self.portal.call(self._gate.set)

    def lose_answer(self, *statements: str) -> None:
        """Have the server execute each of these statements once, but reset its connection instead of the answer."""
        self._to_lose.extend(statements)

    def loses(self, statement: str) -> bool:
        """Note that this statement is on its way, and decide whether its answer will be lost."""
        self.statements.append(statement)
        if statement not in self._to_lose:
            return False
        self._to_lose.remove(statement)
        return True

    async def pass_gate(self) -> None:
        """Wait as long as nothing is forwarded."""
        await self._gate.wait()
        if self.latency:
            await asyncio.sleep(self.latency)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection to the server."""
        given = conninfo_to_dict(self._dsn)
        host, port = str(given["host"]), given.get("port") or 5432
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, int(port))

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _unlisten(self) -> None:
        # Whoever was accepted by a turn of the loop gets its transport in the next, and asyncio leaves its socket open if the
        # server has closed in between.
        for listening in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        await asyncio.sleep(0.01)
        self._server.close()
        self._reset_links()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._server.is_serving():  # accepted by the system just before it was to be refused
            writer.transport.abort()
            return
        link = _Link(self, reader, writer)
        self._links.add(link)
        with suppress(asyncio.CancelledError):  # by its reset, and nobody else
            await link.forward()
        self._links.discard(link)

    def _reset_links(self) -> None:
        for link in self._links:
            link.reset()

    async def _wait_for_links(self) -> None:
        if tasks := [link.task for link in self._links]:
            await asyncio.wait(tasks)


class _Link:
    """A client's connection, and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = reader, writer
        self._statements = Statements()
        self._losing = ""
        task = asyncio.current_task()
        assert task is not None
        self.task = task

    def reset(self) -> None:
        """Let the client see ECONNRESET."""
        client: socket.socket = self._to_client.get_extra_info("socket")
        with suppress(OSError):  # it has left by itself
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._to_client.transport.abort()
        self.task.cancel()

    async def forward(self) -> None:
        """Forward in both directions until one side leaves."""
        writers = [self._to_client]
        try:
            await self._proxy.pass_gate()
            from_server, to_server = await self._proxy.connect()
            writers.append(to_server)
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self._forward_up(to_server))
                directions.create_task(self._forward_down(from_server))
        except* OSError:
            pass
        finally:
            for writer in writers:
                writer.close()

    async def _forward_up(self, to_server: asyncio.StreamWriter) -> None:
        messages = Messages(from_client=True)
        while True:
            whole = messages.feed(await _read(self._from_client))
            await self._proxy.pass_gate()
            for statement in filter(None, map(self._statements.executed_by, whole)):
                if self._proxy.loses(statement):
                    self._losing = statement
            to_server.write(b"".join(whole))
            await to_server.drain()

    async def _forward_down(self, from_server: asyncio.StreamReader) -> None:
        messages = Messages(from_client=False)
        while True:
            whole = messages.feed(await _read(from_server))
            await self._proxy.pass_gate()
            if self._proxy.swallows:
                whole = [message for message in whole if message[:1] != NOTIFICATION]
            if not self._losing:
                self._to_client.write(b"".join(whole))
                await self._to_client.drain()
            elif any(message[:1] == READY for message in whole):
                self._proxy.lost.append(self._losing)
                self.reset()


async def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


async def _read(reader: asyncio.StreamReader) -> bytes:
    if data := await reader.read(_CHUNK):
        return data
    raise ConnectionError("this side has left")
