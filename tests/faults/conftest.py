"""What breaks: processes that can be killed, and a network that can be cut."""

from collections.abc import Iterator

import pytest
from support.netfault import Proxy
from support.processes import Processes

from pgrun.testing import ModelServer


@pytest.fixture
def processes(dsn: str, models: ModelServer) -> Iterator[Processes]:
    """Starts workers and programs that know the database and the models of this test."""
    with Processes(dsn, models.environ) as started:
        yield started


@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    """A network before the database that fails on command."""
    with Proxy(dsn) as forwarding:
        yield forwarding
