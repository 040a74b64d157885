"""The embedded Postgres in ordinary use: it starts, is shared, keeps its data, and says what is wrong."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import psycopg
import pytest
from support.embedded_users import (
    AS_ROOT,
    FAST,
    User,
    execute,
    fresh_place,
    is_gone,
    lock_owner,
    shared_place,
    socket_directory,
    until,
    value_of,
)

from pgrun.db.embedded import EmbeddedPostgres, embedded_url
from pgrun.db.embedded._locks import FileLock
from pgrun.errors import DatabaseError, DatabaseUnavailable, UsageError


@pytest.fixture
def directory() -> Iterator[Path]:
    with shared_place() as path:
        yield path


@pytest.fixture
def empty() -> Iterator[Path]:
    with fresh_place() as path:
        yield path


@pytest.mark.slow
def test_starts_in_an_empty_place_and_goes_with_its_last_user(empty: Path) -> None:
    server = EmbeddedPostgres(empty)
    with server:
        assert value_of(server, "show listen_addresses") == ""
        assert value_of(server, "show fsync") == "on"
        assert (
            value_of(server, "select pg_encoding_to_char(encoding) from pg_database where datname = 'postgres'")
            == "UTF8"
        )
        assert (server.bin / "postgres").exists()
        assert "acquired=True" in repr(server)
    assert "acquired=False" in repr(server)
    until(lambda: is_gone(empty), within=2)
    assert server.postmaster_pid is None
    with pytest.raises(psycopg.OperationalError):
        value_of(server, "select 1")


def test_keeps_data_over_stop_and_start(directory: Path) -> None:
    with EmbeddedPostgres(directory, settings=FAST) as server:
        execute(server, "drop table if exists kept; create table kept as select 42 as answer")
    until(lambda: is_gone(directory))
    with server:
        assert value_of(server, "select answer from kept") == 42


def test_joining_takes_milliseconds(directory: Path) -> None:
    with EmbeddedPostgres(directory, settings=FAST):
        times = []
        for _ in range(10):
            started = time.perf_counter()
            with EmbeddedPostgres(directory):
                times.append(time.perf_counter() - started)
    assert min(times) < 0.02


def test_each_object_is_a_user(directory: Path) -> None:
    first, second = EmbeddedPostgres(directory, settings=FAST), EmbeddedPostgres(directory)
    first.acquire()
    second.acquire()
    before = second.postmaster_pid
    first.acquire()  # again: nothing changes
    first.release()
    first.release()
    users = FileLock(directory / "users.lock")
    assert not users.take_now()  # the watchdog cannot have it either
    users.close()
    assert value_of(second, "select 1") == 1
    assert second.postmaster_pid == before
    second.release()


def test_threads_share_an_object(directory: Path) -> None:
    server = EmbeddedPostgres(directory, settings=FAST)
    together = threading.Barrier(8)

    def use(_: int) -> object:
        together.wait()
        server.acquire()
        return value_of(server, "select 1")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(use, range(8))) == [1] * 8
    server.release()


def test_from_an_asynchronous_program(directory: Path) -> None:
    server = EmbeddedPostgres(directory, settings=FAST)

    async def acquire() -> None:
        await anyio.to_thread.run_sync(server.acquire)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(acquire)

    anyio.run(main)
    assert value_of(server, "select 1") == 1
    server.release()


def test_settings_of_the_first_user_count(directory: Path) -> None:
    with EmbeddedPostgres(directory, settings=FAST | {"work_mem": "7MB"}) as server:
        assert value_of(server, "show work_mem") == "7MB"
        with EmbeddedPostgres(directory, settings={"work_mem": "9MB"}) as second:
            assert value_of(second, "show work_mem") == "7MB"


@pytest.mark.slow
def test_a_failed_start_shows_the_log(directory: Path) -> None:
    server = EmbeddedPostgres(directory, settings={"work_mem": "a lot"})
    with pytest.raises(DatabaseError, match='invalid value for parameter "work_mem"'):
        server.acquire()
    assert not server.is_acquired
    with EmbeddedPostgres(directory, settings=FAST) as other:  # and leaves nothing that stands in the way
        assert value_of(other, "select 1") == 1


def test_gives_up_waiting_for_another_starter(empty: Path) -> None:
    empty.mkdir()
    boot = FileLock(empty / "boot.lock")
    assert boot.take_now()
    with pytest.raises(DatabaseUnavailable, match=r"boot\.lock stayed locked"):
        EmbeddedPostgres(empty).acquire(timeout=0.05)
    boot.close()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_restart_comes_back_at_the_same_place(directory: Path, mode: str) -> None:
    with EmbeddedPostgres(directory, settings=FAST) as server, psycopg.connect(server.conninfo) as connection:
        before = server.postmaster_pid, server.conninfo
        server.restart("fast" if mode == "fast" else "immediate")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
        assert value_of(server, "select 1") == 1
        assert server.postmaster_pid != before[0]
        assert server.conninfo == before[1]


def test_keeps_no_pipe_of_its_starter_open_and_prints_nothing(directory: Path) -> None:
    starter = User(directory).ready()
    with EmbeddedPostgres(directory) as server:
        assert starter.leave() == b""  # comes to the end of the pipe although server and watchdog live on
        assert value_of(server, "select 1") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_tells_the_server_no_secrets(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=1MB")
    with EmbeddedPostgres(directory, settings=FAST) as server:
        for pid in (lock_owner(directory / "watchdog.lock"), server.postmaster_pid):
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            assert b"sk-secret" not in environment
            assert b"PGOPTIONS" not in environment


@pytest.mark.slow
def test_a_long_path_has_its_socket_elsewhere(empty: Path) -> None:
    long = empty / ("x" * 90)
    with EmbeddedPostgres(long, settings=FAST) as server:
        sockets = socket_directory(server)
        assert sockets.parent == Path("/tmp")
        assert sockets.stat().st_mode & 0o077 == 0
        assert value_of(server, "select 1") == 1
    until(lambda: is_gone(long))
    assert not sockets.exists()


@pytest.mark.slow
def test_a_strange_path_works(empty: Path) -> None:
    with EmbeddedPostgres(empty / "it's, ü b", settings=FAST) as server:
        assert value_of(server, "select 1") == 1
    until(lambda: is_gone(server.directory))


def test_refuses_a_socket_directory_of_somebody_else(empty: Path) -> None:
    server = EmbeddedPostgres(empty / ("y" * 90), settings=FAST)
    sockets = socket_directory(server)
    sockets.symlink_to(empty.parent)
    try:
        with pytest.raises(UsageError, match="somebody else"):
            server.acquire()
    finally:
        sockets.unlink()


def test_refuses_directories_that_hold_something_else(tmp_path: Path) -> None:
    (tmp_path / "a" / "data").mkdir(parents=True)
    with pytest.raises(UsageError, match="no Postgres data directory"):
        EmbeddedPostgres(tmp_path / "a").acquire()
    (tmp_path / "PG_VERSION").write_text("18\n")
    with pytest.raises(UsageError, match="itself a Postgres data directory"):
        EmbeddedPostgres(tmp_path).acquire()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot use"):
        EmbeddedPostgres(tmp_path / "file").acquire()


@pytest.mark.skipif(not AS_ROOT, reason="takes the place of another user")
def test_other_local_users_cannot_connect(directory: Path) -> None:
    with EmbeddedPostgres(directory, settings=FAST) as server:
        psql = server.bin / "psql"
        if (
            not psql.exists()
            or subprocess.run([psql, "--version"], user=54321, group=54321, extra_groups=[], cwd="/").returncode
        ):
            pytest.skip("no psql within the other user's reach")
        done = subprocess.run(
            [psql, server.conninfo, "-c", "select 1"],
            user=54321,
            group=54321,
            extra_groups=[],
            cwd="/",
            capture_output=True,
        )
    assert done.returncode == 2
    assert b"Permission denied" in done.stderr


def test_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    assert embedded_url("embedded:/some/dir").directory == Path("/some/dir")
    assert embedded_url("embedded:///some/dir").directory == Path("/some/dir")
    assert embedded_url("embedded:dir").directory == tmp_path / "dir"
    assert embedded_url("embedded:~/dir").directory == Path("/home/ada/dir")
    for url in ("embedded", "postgresql://x", "embedded://dir", "embedded:~nobody-of-this-name/x"):
        with pytest.raises(UsageError):
            embedded_url(url)


def test_default_directory_is_one_per_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/ada/data")
    assert embedded_url("embedded:").directory == Path("/home/ada/data/pgrun/postgres")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert embedded_url("embedded:").directory == Path("/home/ada/.local/share/pgrun/postgres")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert embedded_url("embedded:").directory == Path("/var/lib/pgrun")


def test_windows_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UsageError, match="POSIX"):
        embedded_url("embedded:")
