"""`PostgresDb`: the database as users hold it. Agents submit and wait through it, workers claim and finish through it.

It may be created anywhere, also at import time: nothing connects before the first use, and each event loop that uses it
gets a small pool of its own.
"""

import re
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, overload

import anyio
import anyio.to_thread
import psycopg
from anyio.lowlevel import current_token

from pgrun import _hosting
from pgrun._sync import run_sync
from pgrun.db import listener
from pgrun.db._address import Address, parse_url, url_from_environment
from pgrun.db._connection import Connection, Row
from pgrun.db._runtime import Runtime
from pgrun.db.awaiting import Awaits
from pgrun.db.embedded import embedded_url
from pgrun.db.following import Following, Reader
from pgrun.db.lending import Lent
from pgrun.db.migrations import Migration, check_version, migrate
from pgrun.db.placing import knows_queue, place
from pgrun.db.queues import QueueControl
from pgrun.db.records import NewRun, Placed
from pgrun.db.schedules import Scheduling
from pgrun.db.statements import check_schema
from pgrun.db.submitter import Submitter
from pgrun.db.tending import Tends
from pgrun.db.verbs import Verbs
from pgrun.db.waiting import Waiting, check_timeout, not_found
from pgrun.errors import UsageError, WaitTimeout
from pgrun.retry import RetryPolicy
from pgrun.run.base import output_from_row
from pgrun.run.task_context import Middleware, SyncTaskContext, TaskContext
from pgrun.settings import Settings

if TYPE_CHECKING:
    from pgrun.task import Task

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
M = TypeVar("M", bound=Middleware)

# How Postgres says that somebody else has just created the same: it depends on how far both have come.
_TWIN = (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation)

WorkerMode = Literal["auto", "embedded", "external"]


class Connected:
    """A `PostgresDb` in use by one event loop.

    Attributes:
        hosted: Queues that this process serves itself.
        waits: Whether the service for waiters runs; it starts with the first of them.
        following: The readers of streams; their service starts with the first of them, too.
    """

    def __init__(self, runtime: Runtime, settings: Settings) -> None:
        self.runtime = runtime
        self.verbs = Verbs(runtime)
        self.submitter = Submitter(self.verbs)
        self.waiting = Waiting(runtime, settings)
        self.hosted = set[str]()
        self.waits = False
        self.following: Following | None = None


class PostgresDb(Awaits, Tends, QueueControl, Scheduling):
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
        self.session_table = _check_session_table(session_table)
        self.settings = settings or Settings()
        self.worker: WorkerMode = worker
        self.middlewares: tuple[Middleware, ...] = ()
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
        return await runtime.with_connection(
            partial(migrate, schema=self.schema), deadline=None
        )  # indexes take their time

    def migrate(self) -> list[Migration]:
        """The same as `amigrate`, for code without an event loop."""
        return run_sync(self.amigrate)

    @overload
    def task(self, function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]], /) -> "Task[P, R]": ...
    @overload
    def task(self, function: Callable[Concatenate[SyncTaskContext, P], R], /) -> "Task[P, R]": ...
    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> "Task[P, R]": ...
    @overload
    def task(self, function: Callable[P, R], /) -> "Task[P, R]": ...
    @overload
    def task(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        queue: str = "default",
        retry: RetryPolicy | None = None,
        max_attempts: int | None = None,
        timeout: float | None = None,
        processes: bool = False,
        middleware: Iterable[Middleware] = (),
    ) -> "_TaskMaker": ...
    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        queue: str = "default",
        retry: RetryPolicy | None = None,
        max_attempts: int | None = None,
        timeout: float | None = None,
        processes: bool = False,
        middleware: Iterable[Middleware] = (),
    ) -> Any:
        """Makes a function a task, whose calls can be submitted as runs: ``@db.task`` or ``@db.task(queue="mail")``.

        Args:
            function: Async, or plain: a plain function runs in a thread. Its annotations say what is stored; a first parameter
                that is a `TaskContext`, or for a plain function a `SyncTaskContext`, is filled in.
            name: By which workers and SQL know it. Default: the function's.
            queue: The queue of its runs.
            retry: When failed attempts are repeated.
            max_attempts: How many attempts its runs have, in short for a retry policy.
            timeout: Seconds that an attempt may take, then it has failed; see `RunOptions.timeout`.
            timeout: Seconds that an attempt may take, then it has failed; see `Task`.
            processes: Call the function in a process of its own.
            middleware: Around each execution, see `middleware`.

        Raises:
            UsageError: A parameter cannot be stored, or another function has that name.
        """
        make = partial(
            _hosting.make_task,
            self,
            name=name,
            queue=queue,
            retry=retry,
            max_attempts=max_attempts,
            timeout=timeout,
            processes=processes,
            middleware=middleware,
        )
        return make if function is None else make(function)

    def middleware(self, around: M) -> M:
        """Puts a function around each execution of each task of this object, in this process; the first is the outermost.

        ``@db.middleware`` before ``async def log(ctx, call_next)``, which gets the `TaskContext` of the run, and returns what
        ``await call_next()`` has returned, or something else. What it raises counts as raised by the task.
        """
        self.middlewares = (*self.middlewares, around)
        return around

    async def submit(self, run: NewRun) -> datetime | None:
        """Inserts a run and, where this process is to execute it, starts the embedded worker.

        Returns:
            When it was created; None if a run with this id was there before.

        Raises:
            UsageError: The queue does not exist.
        """
        connected = await self._takes(run.queue)
        created_at = await connected.verbs.submit(run)
        self._take_in(connected, run.queue)
        return created_at

    async def submit_call(self, like: NewRun, run_id: str, data: bytes) -> None:
        """The same for a call of a task, with a new id and its input (JSON); calls that come at the same time go together."""
        connected = await self._takes(like.queue)
        await connected.submitter.submit(like, run_id, data)
        self._take_in(connected, like.queue)

    async def submit_calls(self, like: NewRun, run_ids: Sequence[str], inputs: bytes) -> None:
        """The same for many calls of a task, with a JSON array of their inputs: all of them, or none."""
        connected = await self._takes(like.queue)
        await connected.verbs.submit_calls(like, run_ids, inputs)
        self._take_in(connected, like.queue)

    async def place(
        self, like: NewRun, run_ids: Sequence[str], inputs: bytes, keys: Sequence[str] = ()
    ) -> list[Placed]:
        """The same for runs under terms: with an input each (a JSON array) and a key each, or none.

        On the connection that the terms name, if they do.

        Returns:
            In the order of the ids which run each of them is now: a new one, or the one that holds its key.
        """
        assert like.terms is not None
        if like.terms.key_scope and not keys:
            raise UsageError("key_scope=, key_period= and on_duplicate= say what holds for a key; give key=, too")
        if like.terms.conn is None:
            connected = await self._takes(like.queue)
            placed = await connected.verbs.place(like, run_ids, inputs, keys)
        else:
            connected = await self.connected()
            lent = Lent(like.terms.conn, schema=self.schema, shown=connected.runtime.address.shown)
            if not await connected.verbs.knows(like.queue) and not await knows_queue(lent, like.queue):
                raise self._unknown(like.queue)
            placed = await place(lent, like, run_ids, inputs, keys)
        self._take_in(connected, like.queue)
        return placed

    async def wait_for(self, run_id: str, timeout: float | None, *, or_paused: bool = False, since: float = 0.0) -> Row:
        """The row of a run once it has ended; it had not yet at `since`, on the clock of `time.monotonic`.

        With `or_paused` also once it waits for a person.

        Raises:
            WaitTimeout: It has not ended after `timeout` seconds; the message says what it waits for.
            RunNotFound: There is no such run.
        """
        rows = await self._wait([run_id], timeout, first=False, or_paused=or_paused, since=since)
        return rows[run_id]

    async def approve(self, run_id: str, decisions: Iterable[Mapping[str, Any]], *, queue: str) -> None:
        """Decides on calls that a paused run waits for; see `Verbs.approve`. This process may have to execute it then.

        Raises:
            UsageError: A decision does not fit, or has been taken otherwise; those before it stand.
        """
        connected = await self.connected()
        for decision in decisions:
            await connected.verbs.approve(run_id, decision)
        self._take_in(connected, queue)

    async def open_stream(self, run_id: str, after: int) -> Reader:
        """A reader of the events of a run that come after one; from now on the run tells what happens to it.

        It has to be closed.

        Raises:
            RunNotFound: There is no such run.
        """
        connected = await self.connected()
        await connected.verbs.watch(run_id)
        return (connected.following or self._start_following(connected)).open(run_id, after)

    async def _wait(
        self, run_ids: list[str], timeout: float | None, *, first: bool, or_paused: bool = False, since: float = 0.0
    ) -> dict[str, Row]:
        check_timeout(timeout)
        waiting = await self._waiters()
        connected = await self.connected()
        with anyio.move_on_after(timeout):
            return await waiting.wait(run_ids, first=first, or_paused=or_paused, since=since)
        # One last look: with timeout=0, or when the end and the time-out coincide, the row decides.
        rows = await connected.runtime.fetch(
            "look_at_runs", {"run_ids": run_ids, "or_paused": run_ids if or_paused else []}
        )
        if missing := next((str(row["asked"]) for row in rows if row["run_id"] is None), None):
            raise not_found(missing)
        ended = {str(row["asked"]): row for row in rows}
        late = next((run_id for run_id in run_ids if run_id not in ended), None)
        if late is None or (first and ended):
            return ended
        raise await self._timed_out(connected, late, timeout)

    async def _waiters(self) -> Waiting:
        connected = await self.connected()
        if not connected.waits:
            self._start_waiting(connected)
        return connected.waiting

    async def _reach(self) -> Verbs:
        return (await self.connected()).verbs

    async def _timed_out(self, connected: Connected, run_id: str, timeout: float | None) -> WaitTimeout:
        row = await connected.verbs.get(run_id)
        run = output_from_row(row, row["output"], None) if row else None
        state = f"is still {row['status']}" if row else "does not exist"
        reason = ""
        if run and run.is_paused:
            reason = f": it waits for a person ({', '.join(each.name for each in run.active_requirements)})"
        elif row and row["held"]:
            reason = f" (held: {row['held']})"
        elif row and row["error"]:
            reason = f"; its last error: {row['error'].get('message')}"
        return WaitTimeout(f"run {run_id} {state} after {timeout:g} s{reason}", run_id=run_id, run=run)

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

    async def _verbs(self, *, hosting: str = "") -> Verbs:
        connected = await self.connected()
        if hosting:
            self._take_in(connected, hosting)
        return connected.verbs

    def _start_waiting(self, connected: Connected) -> None:
        connected.waits = True
        address = connected.runtime.address

        async def serve_waiters() -> None:
            leave = listener.subscribe(self.listen_address or address, address, self.schema, connected.waiting)
            try:
                await connected.waiting.serve()
            finally:
                leave()

        connected.runtime.start_service(serve_waiters, "pgrun waiters")

    def _start_following(self, connected: Connected) -> Following:
        address = connected.runtime.address
        subscribe = partial(listener.subscribe_to_streams, self.listen_address or address, address, self.schema)
        connected.following = Following(connected.runtime, connected.verbs, self.settings, subscribe)
        connected.runtime.start_service(connected.following.serve, "pgrun readers")
        return connected.following

    async def _takes(self, queue: str) -> Connected:
        """Where to submit to that queue."""
        connected = await self.connected()
        if not await connected.verbs.knows(queue):
            raise self._unknown(queue)
        return connected

    def _unknown(self, queue: str) -> UsageError:
        return UsageError(
            f'unknown queue "{queue}": start a worker that serves it (pgrun worker --queues {queue}), '
            f"or declare it: insert into {self.schema}.queues (queue) values ('{queue}')"
        )

    def _take_in(self, connected: Connected, queue: str) -> None:
        """After a submit to `queue`: is it this process that has to execute it?"""
        if self.worker != "external" and queue not in connected.hosted:
            self._host(connected, queue)

    def _host(self, connected: Connected, queue: str) -> None:
        if _hosting.embedded_worker is None:
            return
        connected.hosted.add(queue)
        if len(connected.hosted) == 1:
            connected.runtime.start_service(
                partial(_hosting.embedded_worker, self, connected.hosted), "pgrun embedded worker"
            )

    async def _prepare(self, conn: Connection) -> None:
        await check_version(conn, self.schema, create=self._create_schema)
        if self.session_table != "sessions" and self._create_schema:
            await self._make_session_view(conn)

    async def _make_session_view(self, conn: Connection) -> None:
        name = f'"{self.schema}"."{self.session_table}"'
        cursor = await conn.execute("select to_regclass(%s) is null as missing", [name])
        row = await cursor.fetchone()
        if row is None or not row["missing"]:
            return
        view = (
            f"create view {name} as select session_id, last_seq as runs, created_at, updated_at "
            f"from \"{self.schema}\".sessions where session_table = '{self.session_table}'"
        )
        # A convenience: without the right to create it, or beside a twin that just did, nothing is missing.
        with suppress(psycopg.errors.InsufficientPrivilege, *_TWIN):
            await conn.execute(view)


class _TaskMaker(Protocol):
    """What ``@db.task(...)`` does with the function below it."""

    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]], /) -> "Task[P, R]": ...
    @overload
    def __call__(self, function: Callable[Concatenate[SyncTaskContext, P], R], /) -> "Task[P, R]": ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> "Task[P, R]": ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> "Task[P, R]": ...


def _check_session_table(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", name):
        raise UsageError(
            f"session_table={name!r}: use up to 63 letters, digits and underscores, not beginning with a digit"
        )
    return name


def _running_loop() -> Any:
    token = current_token()
    if "asyncio" not in token.backend_class.__module__:
        raise UsageError("pgrun runs on asyncio; from trio, use the methods without the a in a thread")
    return token.native_token
