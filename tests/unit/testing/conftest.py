"""A model server of its own for each test, and the provider's own clients, which know nothing of it but its address."""

from collections.abc import AsyncIterator, Iterator

import pytest
from openai import AsyncOpenAI, OpenAI

from pgrun.testing import ModelServer


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
async def client(server: ModelServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0) as client:
        yield client


@pytest.fixture
def blocking(server: ModelServer) -> Iterator[OpenAI]:
    """The client for code without an event loop."""
    with OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0) as client:
        yield client
