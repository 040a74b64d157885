"""Whose key goes where: the process's own key reaches only servers that the process trusts by itself."""

from typing import Any

import pytest

from pgrun import OpenAIResponses, QuotaExceeded
from pgrun.models.base import Message, ModelRequest, load_model
from pgrun.testing import ModelServer

HELLO = ModelRequest((Message("user", "Hello"),))


@pytest.fixture(autouse=True)
def own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with a key of its own, for OpenAI."""
    for name in ("OPENAI_BASE_URL", "OPENAI_ADMIN_KEY", "OPENAI_CUSTOM_HEADERS", "PGRUN_TRUSTED_BASE_URLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "own-key")


def stored(**account: Any) -> dict[str, Any]:
    return {"provider": "openai.responses", "id": "gpt-5-mini", **account}


async def headers_sent(models: ModelServer, definition: dict[str, Any]) -> dict[str, str]:
    await load_model(definition).call(HELLO)
    return {**models.calls[-1].headers}


async def test_a_server_that_only_the_database_names_never_gets_the_key(models: ModelServer) -> None:
    sent = await headers_sent(models, stored(base_url=models.base_url))
    assert sent["authorization"] == "Bearer none"
    assert "own-key" not in str(sent)


@pytest.mark.parametrize(
    "custom", ["X-Gate: own-key", "Authorization: Bearer own-key\nX-Gate: own-key", "authorization: own-key"]
)
async def test_nor_what_the_environment_adds_to_every_request(
    models: ModelServer, monkeypatch: pytest.MonkeyPatch, custom: str
) -> None:
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", custom)
    sent = await headers_sent(models, stored(base_url=models.base_url))
    assert sent["authorization"] == "Bearer none"
    assert "own-key" not in str(sent)


@pytest.mark.parametrize("ending", ["", "/"])
async def test_the_server_of_this_process_gets_the_key(
    models: ModelServer, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", models.base_url)
    assert (await headers_sent(models, stored()))["authorization"] == "Bearer own-key"
    assert (await headers_sent(models, stored(base_url=models.base_url + ending)))["authorization"] == "Bearer own-key"


async def test_a_server_that_this_process_lists_gets_the_key(
    models: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGRUN_TRUSTED_BASE_URLS", f"https://example.org/v1, {models.base_url}/ ,")
    assert (await headers_sent(models, stored(base_url=models.base_url)))["authorization"] == "Bearer own-key"


@pytest.mark.parametrize("listed", ["", ",", "{host}", "{base}/more", "https://example.org/v1"])
async def test_a_server_that_only_resembles_a_trusted_one_does_not(
    models: ModelServer, monkeypatch: pytest.MonkeyPatch, listed: str
) -> None:
    base = models.base_url
    monkeypatch.setenv("PGRUN_TRUSTED_BASE_URLS", listed.format(host=base.removesuffix("/v1"), base=base))
    assert (await headers_sent(models, stored(base_url=base)))["authorization"] == "Bearer none"


async def test_a_server_that_the_program_names_gets_the_key(models: ModelServer) -> None:
    await OpenAIResponses(base_url=models.base_url).call(HELLO)
    await OpenAIResponses(base_url=models.base_url, api_key="another").call(HELLO)
    assert [call.headers["authorization"] for call in models.calls] == ["Bearer own-key", "Bearer another"]


@pytest.mark.parametrize("key", [None, ""])
async def test_without_a_key_it_says_where_one_belongs(
    models: ModelServer, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(QuotaExceeded, match="no API key here: set OPENAI_API_KEY where the worker runs") as caught:
        await OpenAIResponses(base_url=models.base_url, api_key=key).call(HELLO)
    assert caught.value.details == {"code": "no_api_key"}
    assert models.calls == []


@pytest.mark.parametrize("key", ["geheim\n", "geh eim", " ", "gehëim", "geheim\x00"])
async def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(
    models: ModelServer, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    if "\x00" not in key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(QuotaExceeded, match="the API key here is not one"):
            await OpenAIResponses(base_url=models.base_url).call(HELLO)
    with pytest.raises(QuotaExceeded, match="space, line break or other character") as caught:
        await OpenAIResponses(base_url=models.base_url, api_key=key).call(HELLO)
    assert "eim" not in str(caught.value) + str(caught.value.details)
    assert models.calls == []


async def test_an_administrators_key_is_no_key_for_models(models: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "admin")
    with pytest.raises(QuotaExceeded, match="the API key here is not one: it is empty"):
        await OpenAIResponses(base_url=models.base_url).call(HELLO)
