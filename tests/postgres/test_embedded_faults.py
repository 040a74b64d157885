"""The embedded Postgres when processes die, meet, or leave things behind."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.embedded_users import (
    AS_ROOT,
    FAST,
    User,
    execute,
    fresh_place,
    is_alive,
    is_gone,
    lock_owner,
    shared_place,
    until,
    value_of,
)

from pgrun.db.embedded import EmbeddedPostgres
from pgrun.db.embedded._account import choose_account
from pgrun.db.embedded._locks import is_locked
from pgrun.errors import DatabaseError, DatabaseUnavailable


@pytest.fixture
def directory() -> Iterator[Path]:
    with shared_place() as path:
        yield path


@pytest.fixture
def empty() -> Iterator[Path]:
    with fresh_place() as path:
        yield path


def kill(pid: int | None, number: signal.Signals = signal.SIGKILL) -> None:
    assert pid
    os.kill(pid, number)


def test_goes_when_all_users_are_killed(directory: Path) -> None:
    users = [User(directory).ready(), User(directory).ready()]
    server = EmbeddedPostgres(directory)
    postmaster, watchdog = server.postmaster_pid, lock_owner(directory / "watchdog.lock")
    users[0].kill()
    with server:
        assert value_of(server, "select 1") == 1
    users[1].kill()
    until(lambda: is_gone(directory), within=2)
    assert postmaster
    until(lambda: not is_alive(postmaster) and not is_alive(watchdog), within=2)
    assert "database system is shut down" in (directory / "server.log").read_text()


@pytest.mark.slow
def test_eight_processes_on_an_empty_directory_get_one_server(empty: Path) -> None:
    tell = "os.write(1, f'{server.postmaster_pid}\\n'.encode())\n"
    users = [User(empty, doing=tell) for _ in range(8)]
    pids = {user.process.stdout.readline() for user in users if user.process.stdout}
    assert len(pids) == 1
    with EmbeddedPostgres(empty) as server:
        for user in users:
            user.ready().leave()
        assert value_of(server, "select 1") == 1


@pytest.mark.slow
def test_a_user_that_comes_while_the_server_stops_gets_a_server(directory: Path) -> None:
    server = EmbeddedPostgres(directory, settings=FAST)
    server.acquire()
    for _ in range(8):
        before = server.postmaster_pid
        server.release()
        until(lambda: is_locked(directory / "users.lock"))  # by the watchdog, which stops the server now
        server.acquire()
        assert value_of(server, "select 1") == 1
        assert server.postmaster_pid != before
    for _ in range(30):  # and where nobody knows who comes first
        server.release()
        server.acquire()
        assert value_of(server, "select 1") == 1
    server.release()


def test_a_killed_postmaster_comes_back(directory: Path) -> None:
    with EmbeddedPostgres(directory, settings=FAST) as server:
        execute(server, "drop table if exists kept; create table kept as select 42 as answer")
        for _ in range(3):
            before = server.postmaster_pid
            kill(before)
            until(lambda: server.postmaster_pid not in (before, None))  # noqa: B023 - called at once
            server.acquire()  # waits until it has recovered
            assert value_of(server, "select answer from kept") == 42
    assert "ended with status -9" in (directory / "server.log").read_text()


def test_a_killed_watchdog_takes_the_server_along_and_acquire_heals(directory: Path) -> None:
    with EmbeddedPostgres(directory, settings=FAST) as server:
        before = server.postmaster_pid
        kill(lock_owner(directory / "watchdog.lock"))
        until(lambda: not is_locked(directory / "watchdog.lock"))
        server.acquire()
        assert value_of(server, "select 1") == 1
        assert server.postmaster_pid != before


@pytest.mark.slow
def test_no_second_server_starts_while_a_process_of_the_first_is_left(directory: Path) -> None:
    with EmbeddedPostgres(directory, settings=FAST) as server:
        first = server.postmaster_pid
        kill(first, signal.SIGSTOP)
        try:
            kill(lock_owner(directory / "watchdog.lock"))
            until(lambda: not is_locked(directory / "watchdog.lock"))
            assert is_locked(directory / "server.lock")
            with pytest.raises(DatabaseUnavailable):
                server.acquire(timeout=0.5)
            assert "lock file" not in (directory / "server.log").read_text()  # it is not even tried
        finally:
            kill(first, signal.SIGCONT)
        server.acquire()
        assert value_of(server, "select 1") == 1


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="elsewhere the server goes with the next user")
def test_goes_when_watchdog_and_users_are_killed(directory: Path) -> None:
    user = User(directory).ready()
    kill(lock_owner(directory / "watchdog.lock"))
    user.kill()
    until(lambda: is_gone(directory), within=2)


def test_ctrl_c_of_one_user_is_no_matter_of_the_server(directory: Path) -> None:
    starter = User(directory).ready()
    with EmbeddedPostgres(directory) as server:
        before = server.postmaster_pid
        for number in (signal.SIGINT, signal.SIGHUP):
            kill(lock_owner(directory / "watchdog.lock"), number)
        os.killpg(starter.process.pid, signal.SIGINT)
        assert b"KeyboardInterrupt" in starter.leave()
        assert value_of(server, "select 1") == 1
        assert server.postmaster_pid == before


def test_sigterm_stops_watchdog_and_server(directory: Path) -> None:
    with EmbeddedPostgres(directory, settings=FAST):
        kill(lock_owner(directory / "watchdog.lock"), signal.SIGTERM)
        until(lambda: is_gone(directory))


@pytest.mark.parametrize(
    "child",
    ["if os.fork() == 0: sys.stdin.read(), os._exit(0)\n", "subprocess.Popen(['sleep', '60'], close_fds=False)\n"],
    ids=["forked", "spawned"],
)
def test_children_of_a_user_do_not_keep_the_server(directory: Path, child: str) -> None:
    user = User(directory, doing=child + "print = None\n").ready()
    user.process.kill()
    user.process.wait()
    until(lambda: is_gone(directory), within=2)
    os.killpg(user.process.pid, signal.SIGKILL)  # the child was there all the time
    user.process.communicate()


def test_a_forked_child_becomes_a_user_by_acquire(directory: Path) -> None:
    child = "if os.fork() == 0:\n    assert not server.is_acquired\n    server.acquire()\n"
    user = User(directory, doing=child).ready().ready()
    user.process.kill()
    user.process.wait()
    with EmbeddedPostgres(directory) as server:
        assert value_of(server, "select 1") == 1
    users = directory / "users.lock"
    assert not is_locked(users)
    assert not is_gone(directory)
    os.killpg(user.process.pid, signal.SIGKILL)
    user.process.communicate()


@pytest.mark.slow
def test_a_starter_killed_during_initdb_leaves_no_half_made_data(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs, go_on = empty.parent / "bin", empty.parent / "go-on"
    programs.mkdir()
    blocking = f'#!/bin/sh\necho 18 > "$2/PG_VERSION"\nuntil test -e {go_on}; do sleep 0.01; done\n'
    for name, text in {"initdb": blocking, "postgres": "#!/bin/sh\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PGRUN_PG_BIN", str(programs))
        user = User(empty)
        until((empty / "data.new" / "PG_VERSION").exists)
        user.process.kill()
        user.process.wait()
    assert is_locked(empty / "boot.lock")  # by the orphan, as long as it writes
    go_on.touch()
    with EmbeddedPostgres(empty, settings=FAST) as server:
        assert value_of(server, "select count(*) from pg_database") == 3
    assert not (empty / "data.new").exists()
    user.process.communicate()


@pytest.mark.parametrize("content", ["{pid}\n{data}\n1700000000\n5432\n\n\n  1234   1234\nready\n", ""])
def test_pid_files_that_name_a_foreign_process_do_not_block_the_start(directory: Path, content: str) -> None:
    with EmbeddedPostgres(directory, settings=FAST) as server:
        execute(server, "drop table if exists kept; create table kept as select 42 as answer")
    until(lambda: is_gone(directory))
    data = directory / "data"
    # Of the server's own user: that is the one case in which postgres believes the number.
    owner = data.stat().st_uid
    stranger = subprocess.Popen(["sleep", "60"], user=owner if AS_ROOT else None)
    (directory / "socket").mkdir(exist_ok=True)
    for path in (data / "postmaster.pid", directory / "socket" / ".s.PGSQL.5432.lock"):
        path.write_text(content.format(pid=stranger.pid, data=data))
        os.chown(path, owner, -1)
    with server:
        assert value_of(server, "select answer from kept") == 42
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


@pytest.mark.slow
def test_a_server_started_by_hand_on_the_same_data_is_left_alone(directory: Path) -> None:
    with EmbeddedPostgres(directory, settings=FAST) as server:
        programs = server.bin
    until(lambda: is_gone(directory))
    data = directory / "data"
    account = choose_account(directory, data, programs)
    pg_ctl = [str(programs / "pg_ctl"), "-D", str(data), "-w", "-l", f"{data}/by-hand.log"]
    options = f"-c listen_addresses= -c unix_socket_directories={data}"
    assert account.run([*pg_ctl, "-o", options, "start"]).returncode == 0
    try:
        with pytest.raises(DatabaseError, match="Is another postmaster"):
            server.acquire()
        assert account.run([*pg_ctl, "status"]).returncode == 0
    finally:
        account.run([*pg_ctl, "-m", "immediate", "stop"])
