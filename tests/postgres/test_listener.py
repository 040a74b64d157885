"""The one connection of a process that LISTENs: shared, proved, reconnected, and done without where it does not work."""

import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from threading import Event

import anyio
import pytest
from psycopg.conninfo import make_conninfo
from support.blocking import until as until_in_thread
from support.database import Conn
from support.ear import Ear
from support.hands import hire, submit
from support.tables import one
from support.until import Heard, until, until_heard

from pgrun import PostgresDb, Settings
from pgrun.db import listener
from pgrun.db._address import Address, parse_url
from pgrun.db._connection import Connection, connection

NEVER = 3600.0
LISTENING = (
    "from pg_stat_activity where datname = current_database() and query like 'listen%' and pid <> pg_backend_pid()"
)


class Note:
    """A subscriber that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []
        self.threads: set[str] = set()

    def on_wake(self, queue: str) -> None:
        self._note("wake", queue)

    def on_soon(self, queue: str) -> None:
        self._note("soon", queue)

    def on_done(self, run_ids: Sequence[str]) -> None:
        self._note("done", [*run_ids])

    def on_cancel(self, run_id: str) -> None:
        self._note("cancel", run_id)

    def on_watch(self, run_id: str) -> None:
        self._note("watch", run_id)

    def on_state(self, listening: bool) -> None:
        self._note("state", listening)

    def _note(self, kind: str, what: object) -> None:
        self.told.append((kind, what))
        self.threads.add(threading.current_thread().name)


def subscribe(dsn: str, note: Note, schema: str = "pgrun") -> Callable[[], None]:
    address = parse_url(dsn)
    return listener.subscribe(address, address, schema, note)


def listeners(conn: Conn) -> int:
    """How many connections to this database LISTEN."""
    return int(one(conn, f"select count(*) {LISTENING}"))


def end_unheard(conn: Conn, run_id: str) -> None:
    """Ends a run as if its notification had been lost."""
    conn.execute("update pgrun.jobs set status = 'completed', finished_at = now() where run_id = %s", [run_id])


def cut(conn: Conn) -> None:
    """Ends the connection that listens."""
    assert one(conn, f"select bool_and(pg_terminate_backend(pid)) {LISTENING}")


async def test_a_subscriber_hears_what_concerns_its_schema(db: PostgresDb, dsn: str, conn: Conn) -> None:
    note = Note()
    leave = subscribe(dsn, note)
    await until(lambda: note.told == [("state", True)])  # it has heard itself
    hand = await hire(db)
    run_id = await submit(db)
    claimed = await hand.claim_one()
    await hand.verbs.cancel(run_id)
    await hand.complete(claimed)
    conn.execute("select pg_notify('other_wake', 'default'), pg_notify('pgrun_unknown', 'x')")
    await submit(db)
    expected = [("wake", "default"), ("cancel", run_id), ("done", [run_id]), ("wake", "default")]
    await until(lambda: len(note.told) == 5)
    assert note.told[1:] == expected
    assert note.threads == {"pgrun-background"}
    leave()


async def test_who_joins_later_is_told_that_it_is_listening_already(dsn: str, conn: Conn) -> None:
    first, second = Note(), Note()
    leaves = [subscribe(dsn, first)]
    await until(lambda: first.told)
    leaves.append(subscribe(dsn, second))
    assert second.told == [("state", True)]
    assert listeners(conn) == 1
    for leave in leaves:
        leave()


async def test_who_has_left_hears_nothing_more_and_the_last_closes_the_connection(dsn: str, conn: Conn) -> None:
    notes = [Note(), Note()]
    leaves = [subscribe(dsn, note) for note in notes]
    await until(lambda: all(note.told for note in notes))
    leaves[0]()
    with Ear(dsn) as ear:
        conn.execute("insert into pgrun.jobs (name) values ('noop')")
        assert ear.heard()
    await until(lambda: ("wake", "default") in notes[1].told)
    assert notes[0].told == [("state", True)]
    leaves[1]()
    await until(lambda: listeners(conn) == 0)
    again = Note()
    leave = subscribe(dsn, again)
    await until(lambda: again.told == [("state", True)])
    leave()


async def test_each_schema_and_address_has_a_connection_of_its_own(dsn: str, conn: Conn) -> None:
    notes = [Note() for _ in range(3)]
    leaves = [
        subscribe(dsn, notes[0]),
        subscribe(dsn, notes[1], "other"),
        subscribe(make_conninfo(dsn, application_name="else"), notes[2]),
    ]
    await until(lambda: all(note.told for note in notes))
    assert listeners(conn) == 3
    for leave in leaves:
        leave()
    await until(lambda: listeners(conn) == 0)


async def test_after_a_cut_it_comes_back_and_says_so(dsn: str, conn: Conn) -> None:
    note = Note()
    leave = subscribe(dsn, note)
    for many in (1, 3, 5):
        await until(lambda: len(note.told) == many)  # noqa: B023
        cut(conn)
    await until(lambda: len(note.told) == 7)
    assert note.told == [("state", number % 2 == 0) for number in range(7)]
    leave()


async def test_whoever_waits_looks_at_everything_when_the_connection_is_lost_and_when_it_is_back(
    dsn: str, conn: Conn, heard: Heard, looks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ends of the runs are heard by nobody, and nothing is polled."""
    may_connect = Event()
    may_connect.set()

    @asynccontextmanager
    async def gated(address: Address, *, within: float | None = None) -> AsyncIterator[Connection]:
        await until(may_connect.is_set)
        async with connection(address, within=within) as opened:
            yield opened

    monkeypatch.setattr(listener, "connection", gated)
    settings = Settings(poll_interval=NEVER, poll_interval_without_listen=NEVER)
    async with PostgresDb(dsn, worker="external", settings=settings) as db:
        first, second = await submit(db), await submit(db)
        got: list[str] = []

        async def wait(run_id: str) -> None:
            await db.await_runs([run_id])
            got.append(run_id)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, first)
            tasks.start_soon(wait, second)
            await until_heard(heard, "listening")
            await until(lambda: sum(looks) >= 2)
            may_connect.clear()
            with conn.transaction():
                cut(conn)
                end_unheard(conn, first)
            await until(lambda: got == [first])
            assert not any(name == "listening" for name, _ in heard[1:])
            end_unheard(conn, second)
            may_connect.set()
        assert got == [first, second]


@pytest.mark.slow
def test_all_loops_of_a_process_share_one_connection_and_the_last_closes_it(dsn: str, conn: Conn) -> None:
    many = 8
    run_ids = [one(conn, "insert into pgrun.jobs (name) values ('noop') returning run_id") for _ in range(many)]
    release = Event()

    async def wait_in_a_loop_of_its_own(run_id: str) -> str:
        async with PostgresDb(dsn, worker="external", settings=Settings(poll_interval=NEVER)) as db:
            (output,) = await db.await_runs([run_id])
            await anyio.to_thread.run_sync(release.wait)
            return str(output.status)

    with ThreadPoolExecutor(many) as threads:
        futures = [threads.submit(anyio.run, wait_in_a_loop_of_its_own, run_id) for run_id in run_ids]
        until_in_thread(lambda: listeners(conn) == 1)
        for run_id in run_ids:
            conn.execute("select pgrun.cancel(%s)", [run_id])
        assert listeners(conn) == 1
        release.set()
        assert [future.result(timeout=15) for future in futures] == ["cancelled"] * many
    until_in_thread(lambda: listeners(conn) == 0)


@pytest.mark.slow
async def test_where_listen_does_not_work_it_polls_and_warns_once(
    dsn: str,
    server: str,
    conn: Conn,
    heard: Heard,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another database of the same server accepts LISTEN, and notifications never arrive: like behind a transaction pooler."""
    monkeypatch.setattr(listener, "_PROOF_DEADLINE", 0.1)
    monkeypatch.setattr(listener, "_TRY_AGAIN", 0.1)
    tries: list[str] = []
    proves = listener._Listener._hears_itself

    async def counted(self: listener._Listener, conn: Connection) -> bool:
        tries.append("again")
        return await proves(self, conn)

    monkeypatch.setattr(listener._Listener, "_hears_itself", counted)
    settings = Settings(poll_interval=NEVER, poll_interval_without_listen=0.05)
    with caplog.at_level(logging.WARNING, "pgrun"):
        async with PostgresDb(dsn, worker="external", listen_url=server, settings=settings) as db:
            for _ in range(3):
                await submit(db)
            hand = await hire(db)
            for run in await hand.claim():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(db.await_runs, [run.run_id])
                    await hand.complete(run)
            await until(lambda: len(tries) >= 4)  # it keeps trying
    assert "listening" not in [name for name, _ in heard]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("LISTEN does not work through database")
    assert "listen_url=" in warning
