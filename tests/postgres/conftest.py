"""What the tests of statements and rules share."""

from collections.abc import Iterator
from typing import Any

import pytest
from support.ear import Ear
from support.scheduling import Look
from support.settings import FAST

from pgrun import PostgresDb, Task
from pgrun.db._runtime import Runtime
from pgrun.worker.schedules import Schedules


@pytest.fixture
def ear(dsn: str) -> Iterator[Ear]:
    """Hears every notification of the test's database from here on."""
    with Ear(dsn) as listening:
        yield listening


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """At how many runs each execution of look_at_runs.sql has looked."""
    said: list[int] = []
    fetch = Runtime.fetch

    async def counted(self: Runtime, name: str, params: Any = None) -> Any:
        rows = await fetch(self, name, params)
        if name == "look_at_runs":
            said.append(len(params["run_ids"]))
        return rows

    monkeypatch.setattr(Runtime, "fetch", counted)
    return said


@pytest.fixture
def calls() -> list[str]:
    """Where the functions of a test note that they were called."""
    return []


@pytest.fixture
def note(db: PostgresDb) -> Task[[str], None]:
    """A task for schedules."""

    @db.task
    async def note(text: str = "") -> None: ...

    return note


@pytest.fixture
async def look(db: PostgresDb) -> Look:
    """Looks at schedules as a worker does: at what is new, and at what has come due."""
    return Schedules((await db.connected()).verbs, FAST).look


@pytest.fixture
def double(db: PostgresDb) -> Task[[int], int]:
    """A task that computes."""

    @db.task
    async def double(number: int) -> int:
        return 2 * number

    return double
