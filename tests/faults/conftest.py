"""What breaks: processes that can be killed, and a network that can be cut."""

from collections.abc import AsyncIterator, Iterator

import pytest
from support.netfault import Proxy
from support.processes import Processes
from support.settings import FAST

from pgrun import PostgresDb
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


@pytest.fixture
async def listens_far(dsn: str, proxy: Proxy) -> AsyncIterator[PostgresDb]:
    """A database whose statements go directly, and whose notifications come over the network that fails."""
    async with PostgresDb(dsn, worker="external", listen_url=proxy.conninfo, settings=FAST) as database:
        yield database
