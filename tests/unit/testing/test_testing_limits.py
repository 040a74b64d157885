"""Rate limits: what each answer tells about them, and what is refused."""

import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from pgrun.testing import Limits, ModelServer, Usage, reply
from pgrun.testing.limits import duration


@pytest.fixture
def client() -> Iterator[OpenAI]:
    with OpenAI(base_url="http://unset", api_key="k", max_retries=0) as client:
        yield client


def told(client: OpenAI, server: ModelServer, model: str = "m", **more: Any) -> dict[str, str]:
    client = client.with_options(base_url=server.base_url)
    raw = client.responses.with_raw_response.create(model=model, input="x", **more)
    return {name.removeprefix("x-ratelimit-"): value for name, value in raw.headers.items() if "ratelimit" in name}


def refused(client: OpenAI, server: ModelServer, **more: Any) -> openai.RateLimitError:
    with pytest.raises(openai.RateLimitError) as caught:
        told(client, server, **more)
    return caught.value


def test_answers_tell_what_is_left(client: OpenAI) -> None:
    with ModelServer(limits=Limits(requests=10, tokens=1000, window=3600)) as server:
        server.script(reply("x", usage=Usage(90, 10)))
        first = told(client, server)
        assert (first["limit-requests"], first["limit-tokens"]) == ("10", "1000")
        assert (first["remaining-requests"], first["remaining-tokens"]) == ("9", "900")
        assert first["reset-requests"].startswith(("6m0", "5m59"))
        assert told(client, server)["remaining-requests"] == "8"
        assert told(client, server, model="other")["remaining-requests"] == "9"


def test_a_call_beyond_the_limit_is_refused_until_as_late_as_it_says(client: OpenAI) -> None:
    with ModelServer(limits=Limits(requests=2, window=1.6)) as server:
        server.script("one", "two", "three")
        told(client, server)
        told(client, server)
        error = refused(client, server)

        assert (error.code, error.type) == ("rate_limit_exceeded", "requests")
        assert "Rate limit reached for m in organization org-test on requests per min (RPM): Limit 2" in error.message
        assert error.response.headers["retry-after"] == "1"
        assert error.response.headers["x-ratelimit-remaining-requests"] == "0"
        wait = int(error.response.headers["retry-after-ms"]) / 1000
        assert 0 < wait <= 0.8
        time.sleep(wait)
        told(client, server)
        assert [call.status for call in server.calls] == [200, 200, 429, 200]
        assert server.paid == 3


def test_tokens_are_limited_too(client: OpenAI) -> None:
    with ModelServer(limits=Limits(tokens=100, window=3600)) as server:
        server.script(reply("x", usage=Usage(100, 50)))
        assert told(client, server, model="m")["remaining-tokens"] == "0"
        error = refused(client, server)
        assert error.type == "tokens"
        assert int(error.response.headers["retry-after"]) > 1800  # what was overdrawn has to be refilled first

        error = refused(client, server, model="other", max_output_tokens=100)
        assert "Request too large for other" in error.message
        assert "retry-after" not in error.response.headers


def test_without_limits_nothing_is_refused(client: OpenAI) -> None:
    with ModelServer() as server:
        server.always(reply("x", usage=Usage(2_000_000, 1)))
        for _ in range(3):
            left = told(client, server)
        assert (left["limit-requests"], left["remaining-tokens"]) == ("10000", "0")


def test_streams_and_errors_tell_it_as_well(client: OpenAI) -> None:
    with ModelServer() as server:
        assert told(client, server, stream=True)["remaining-requests"] == "9999"
        with pytest.raises(openai.BadRequestError) as caught:
            told(client, server, tool_choice="required")
        assert caught.value.response.headers["x-ratelimit-limit-requests"] == "10000"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.006, "6ms"), (1.5, "1.5s"), (60, "1m0s"), (360.25, "6m0.25s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
