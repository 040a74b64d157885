"""What one `PostgresDb` keeps per event loop: a small pool, and the services that live as long as the loop.

Every statement goes through `Runtime.fetch`: shielded from the caller's cancellation and bounded by a deadline, so that
"cancelled" never means "perhaps committed"; repeated when the connection was lost, which every statement allows.
"""

import asyncio  # noqa: TID251  (see Runtime.open)
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import psycopg
from anyio.abc import TaskGroup
from psycopg.rows import AsyncRowFactory, dict_row, tuple_row
from psycopg_pool import AsyncConnectionPool

from pgrun.db._address import Address
from pgrun.db._connection import Connection, Row, connection
from pgrun.db._failures import is_passing, translated
from pgrun.db._pool import is_direct, make_pool
from pgrun.db._shielding import to_its_end
from pgrun.db.statements import statement
from pgrun.settings import Settings

Params = Mapping[str, Any]
T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger("pgrun.db")


class Runtime:
    """Pool and services of one database in one event loop.

    Args:
        address: Where it is.
        schema: Schema of pgrun's tables.
        settings: Deadlines and the size of the pool.
        revive: Blocking function that makes sure the server runs, where that is up to us; called when a connection is lost.
    """

    def __init__(
        self, address: Address, schema: str, settings: Settings, *, revive: Callable[[], None] | None = None
    ) -> None:
        self.address = address
        self._revive = revive
        self._schema = schema
        self._settings = settings
        self._pool: AsyncConnectionPool[Connection] | None = None
        # Connections of the pool that are not in use, at hand without its locks; none while somebody waits for the pool.
        self._at_hand: list[Connection] = []
        self._borrowing = 0
        self._answered = False  # a database that never answered is a mistake in the URL, not an outage
        self._prepares = False
        self._opening = anyio.Lock()
        self._root: asyncio.Task[None] | None = None
        self._services: TaskGroup | None = None
        self._closing = anyio.Event()
        self._loop = asyncio.get_running_loop()

    async def open(self, prepare: Callable[[Connection], Awaitable[None]]) -> None:
        """Connects, lets `prepare` look at the schema on that connection, and is ready for services.

        Repeating it is free.
        """
        if self._root is not None:
            return
        async with self._opening:
            if self._root is not None:  # somebody else was faster
                return  # type: ignore[unreachable]
            await self.with_connection(prepare, deadline=self._settings.statement_timeout)
            self._pool = make_pool(self.address, self._settings, prepares=self._prepares)
            ready = anyio.Event()
            # The one bare task of pgrun: it owns every other one of this loop. Nobody closes a PostgresDb in a script
            # that ends; asyncio.run cancels this task then, and each service in its group says goodbye to the database.
            self._root = asyncio.create_task(self._live(ready), name="pgrun")
            await ready.wait()

    def start_service(self, service: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Runs `service` until the loop ends or the database is closed; it is cancelled then.

        Should it fail, which nobody foresaw, it is logged and started again: callers may be waiting for what it does.
        """
        if self._services is None:
            raise RuntimeError("the runtime is not open")
        self._services.start_soon(_keep_up, service, name, name=name)

    def call_soon(self, function: Callable[..., Any], *args: Any) -> None:
        """Calls a function on this runtime's loop, from any thread; silently not at all once the loop has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    async def aclose(self) -> None:
        """Stops the services and closes the connections."""
        self._closing.set()
        if self._root is not None:
            with anyio.CancelScope(shield=True):
                await asyncio.wait([self._root])

    async def fetch(self, name: str, params: Params | None = None) -> list[Row]:
        """Executes the statement ``sql/queries/<name>.sql`` in a transaction of its own and returns its rows as dicts.

        Cancellation waits until the statement has ended. A lost connection is made good for up to `reconnect_timeout`
        seconds.

        Raises:
            PgrunError: What the database said, in our words.
        """
        return await self._fetch(name, params or {}, dict_row)

    async def fetch_tuples(self, name: str, params: Params) -> list[tuple[Any, ...]]:
        """Like `fetch`, for statements with many rows: tuples with the columns in their order."""
        return await self._fetch(name, params, tuple_row)

    async def _fetch(self, name: str, params: Params, rows_are: AsyncRowFactory[R]) -> list[R]:
        sql = statement(name, self._schema)
        give_up = time.monotonic() + (self._settings.reconnect_timeout if self._answered else 0.0)
        pause = 0.05
        await anyio.lowlevel.checkpoint_if_cancelled()  # or a loop of shielded statements could never be cancelled
        while True:
            try:
                rows = await to_its_end(self._execute(sql, params, rows_are), within=self._settings.statement_timeout)
                self._answered = True
                return rows
            except (psycopg.Error, OSError) as error:
                if not is_passing(error) or time.monotonic() > give_up:
                    raise translated(await self._reason(error), self.address.shown) from error
                _log.debug("%s is repeated: %s", name, error)
            if self._revive is not None:
                await anyio.to_thread.run_sync(self._revive)
            await anyio.sleep(pause)
            pause = min(pause * 2, 1.0)

    async def fetch_one(self, name: str, params: Params | None = None) -> Row | None:
        """The first row of `fetch`, or None."""
        rows = await self.fetch(name, params)
        return rows[0] if rows else None

    async def fetch_directly(self, name: str, params: Params, *, within: float) -> list[Row]:
        """Like `fetch`, on a connection of its own and repeated once: for goodbyes, when the pool may be half dead."""
        try:
            return await to_its_end(self._execute_directly(statement(name, self._schema), params), within=within)
        except (psycopg.Error, OSError) as error:
            raise translated(error, self.address.shown) from error

    async def _execute(self, sql: str, params: Params, rows_are: AsyncRowFactory[R]) -> list[R]:
        conn = self._at_hand.pop() if self._at_hand else await self._borrow()
        try:
            cursor = conn.cursor(row_factory=rows_are)
            await cursor.execute(sql, params)
            rows = await cursor.fetchall() if cursor.description else []
        except BaseException:
            await self._give_back(conn)
            raise
        if self._borrowing:
            await self._give_back(conn)
        else:
            self._at_hand.append(conn)
        return rows

    async def _borrow(self) -> Connection:
        assert self._pool is not None, "the runtime is not open"
        self._borrowing += 1
        try:
            return await self._pool.getconn()
        finally:
            self._borrowing -= 1

    async def _give_back(self, conn: Connection) -> None:
        """To the pool, which looks whether it is still good, and hands it to whoever waits."""
        assert self._pool is not None
        with anyio.CancelScope(shield=True):
            await self._pool.putconn(conn)

    async def _execute_directly(self, sql: str, params: Params) -> list[Row]:
        for is_last in (False, True):
            try:
                async with connection(self.address) as conn:
                    return await (await conn.execute(sql, params, prepare=False)).fetchall()
            except psycopg.Error as error:
                if is_last or not is_passing(error):
                    raise
        raise AssertionError("unreachable: the last round returns or raises")

    async def with_connection(self, work: Callable[[Connection], Awaitable[T]], *, deadline: float | None) -> T:
        """Does some work on a new connection of its own, once; says in our words what fails. `deadline` is in seconds."""
        try:
            with anyio.fail_after(deadline, shield=True):
                async with connection(self.address) as conn:
                    self._prepares = await is_direct(conn)
                    result = await work(conn)
        except (psycopg.Error, OSError) as error:
            raise translated(error, self.address.shown) from error
        self._answered = True
        return result

    async def _live(self, ready: anyio.Event) -> None:
        assert self._pool is not None
        try:
            await self._pool.open()
            async with anyio.create_task_group() as self._services:
                ready.set()
                await self._closing.wait()
                self._services.cancel_scope.cancel()
        finally:
            ready.set()
            self._services = None
            with anyio.move_on_after(5, shield=True):
                while self._at_hand:
                    await self._give_back(self._at_hand.pop())
                await self._pool.close(timeout=1)

    async def _reason(self, error: BaseException) -> BaseException:
        """A pool that cannot connect only says that it timed out; one direct attempt says why."""
        if not isinstance(error, psycopg.OperationalError) or type(error).__module__.startswith("psycopg.errors"):
            return error
        try:
            with anyio.CancelScope(shield=True):
                async with connection(self.address, within=5):
                    pass
        except (psycopg.Error, OSError) as reason:
            return reason
        return error


async def _keep_up(service: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    while True:
        try:
            await service()
            return
        except Exception:
            _log.exception("%s failed and is started again", name)
        await anyio.sleep(1)
