"""What the tests of statements and rules share."""

from collections.abc import Iterator
from typing import Any

import pytest
from support.ear import Ear

from pgrun.db._runtime import Runtime


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
