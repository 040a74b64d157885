"""`PostgresDb`: the database as users hold it. Agents submit and wait through it, workers claim and finish through it.

It may be created anywhere, also at import time: nothing connects before the first use, and each event loop that uses it
gets a small pool of its own.
"""

import weakref
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from anyio.lowlevel import current_token

from pgrun._sync import run_sync
from pgrun.db._address import Address, parse_url, url_from_environment
from pgrun.db._connection import Connection
from pgrun.db._runtime import Runtime
from pgrun.db.awaiting import Awaits
from pgrun.db.connected import Connected, WorkerMode
from pgrun.db.embedded import embedded_url
from pgrun.db.migrations import Migration, check_version, migrate
from pgrun.db.queues import QueueControl
from pgrun.db.schedules import Scheduling
from pgrun.db.session_view import check_session_table, make_session_view
from pgrun.db.statements import check_schema
from pgrun.db.tasks import MakesTasks
from pgrun.db.tending import Tends
from pgrun.errors import UsageError
from pgrun.settings import Settings


class PostgresDb(Awaits, Tends, QueueControl, Scheduling, MakesTasks):
    """Where runs are stored and how this process takes part in them.

    Args:
        db_url: ``postgresql://…``, ``postgresql+psycopg://…``, libpq's ``host=… dbname=…``, several hosts, ``embedded:`` or
            ``embedded:/some/dir`` for a private Postgres. None reads ``$PGRUN_DATABASE_URL``.
        schema: Schema of pgrun's tables.
        session_table: Name of a view in that schema that shows the sessions started through this object.
        create_schema: Make the schema at first use, if it is missing. Upgrades are left to `pgrun migrate`.
        listen_url: Address of the server itself, when `db_url` goes through a pooler that LISTEN does not work with.
        worker: Who executes background runs. ``"external"``: only daemons (`pgrun worker`). ``"embedded"``: this process too,
            on its event loop. ``"auto"``: this process as long as no live daemon serves the queue.
        settings: Numbers that can be tuned.

    Raises:
        UsageError: An argument cannot be understood; the database is not touched yet.
    """

    def __init__(
        self,
        db_url: str | None = None,
        *,
        schema: str = "pgrun",
        session_table: str = "sessions",
        create_schema: bool = True,
        listen_url: str | None = None,
        worker: WorkerMode = "auto",
        settings: Settings | None = None,
    ) -> None:
        if worker not in ("auto", "embedded", "external"):
            raise UsageError(f'worker={worker!r}: choose "auto", "embedded" or "external"')
        url = db_url if db_url is not None else url_from_environment("PGRUN_DATABASE_URL")
        self._server = embedded_url(url) if url.startswith("embedded:") else None
        self._address = None if self._server else parse_url(url)
        self.listen_address = parse_url(listen_url) if listen_url else None
        self.schema = check_schema(schema)
        self.session_table = check_session_table(session_table)
        self.settings = settings or Settings()
        self.worker: WorkerMode = worker
        self._create_schema = create_schema
        self._loops: weakref.WeakKeyDictionary[Any, Connected] = weakref.WeakKeyDictionary()

    def __repr__(self) -> str:
        where = self._address.shown if self._address else f"embedded {self._server}"
        return f"<PostgresDb {where}, schema {self.schema}>"

    async def __aenter__(self) -> "PostgresDb":
        await self.connected()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def connected(self) -> Connected:
        """The pool, verbs and waiters of the running event loop; connects at the first call.

        Raises:
            DatabaseUnavailable: Nothing answers there.
            DatabaseError: It answers, but does not let us in.
            SchemaMismatch: Its tables are not those this pgrun works with.
        """
        loop = _running_loop()
        found = self._loops.get(loop)
        if found is None:
            address = await self._resolve()
            found = self._loops.get(loop) or self._connect_lazily(loop, address)
        await found.runtime.open(self._prepare)
        return found

    async def aclose(self) -> None:
        """Ends what this object does in the running event loop: gives runs back, closes connections."""
        if found := self._loops.pop(_running_loop(), None):
            await found.runtime.aclose()
        if self._server is not None and not self._loops:
            await anyio.to_thread.run_sync(self._server.release)

    def close(self) -> None:
        """The same as `aclose`, for code without an event loop."""
        run_sync(self.aclose)

    def __enter__(self) -> "PostgresDb":
        run_sync(self.connected)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def amigrate(self) -> list[Migration]:
        """Creates or upgrades the schema; returns the migrations that were applied.

        Raises:
            SchemaMismatch: The schema is newer than this pgrun.
            DatabaseError: The role may not, or a migration failed and was rolled back.
        """
        runtime = Runtime(await self._resolve(), self.schema, self.settings)
        # No deadline: indexes take their time.
        return await runtime.with_connection(partial(migrate, schema=self.schema), deadline=None)

    def migrate(self) -> list[Migration]:
        """The same as `amigrate`, for code without an event loop."""
        return run_sync(self.amigrate)

    async def _resolve(self) -> Address:
        if self._address is None:
            assert self._server is not None
            await anyio.to_thread.run_sync(self._server.acquire)
            return parse_url(self._server.conninfo)
        return self._address

    def _connect_lazily(self, loop: Any, address: Address) -> Connected:
        revive = self._server.acquire if self._server else None
        runtime = Runtime(address, self.schema, self.settings, revive=revive)
        self._loops[loop] = connected = Connected(runtime, self.settings)
        return connected

    async def _prepare(self, conn: Connection) -> None:
        await check_version(conn, self.schema, create=self._create_schema)
        if self.session_table != "sessions" and self._create_schema:
            await make_session_view(conn, self.schema, self.session_table)


def _running_loop() -> Any:
    token = current_token()
    if "asyncio" not in token.backend_class.__module__:
        raise UsageError("pgrun runs on asyncio; from trio, use the methods without the a in a thread")
    return token.native_token
