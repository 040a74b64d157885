"""Each kind of answer as the real client sees it, and which call gets which."""

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response
from pydantic import BaseModel, ValidationError

from pgrun.errors import UsageError
from pgrun.testing import (
    ModelServer,
    Usage,
    disconnect,
    failed,
    filtered,
    http_error,
    invalid_json,
    quota_exceeded,
    rate_limited,
    refusal,
    reply,
    server_error,
    truncated,
    unauthorized,
    wrong_shape,
)


class City(BaseModel):
    city: str
    population: int | None = None


async def ask(client: AsyncOpenAI, question: str = "Hello", **more: Any) -> Response:
    response: Response = await client.responses.create(model="gpt-5-mini", input=question, **more)
    # The client parses leniently; this is the strict reading of the shape it declares.
    Response.model_validate(response.model_dump(exclude_unset=True))
    return response


async def test_unscripted_call_gets_a_text_that_shows_its_question(client: AsyncOpenAI) -> None:
    response = await ask(client, "What is the capital\nof France?", instructions="Be brief.", temperature=0)

    assert response.output_text == "A made-up answer to: What is the capital of France?"
    assert (response.status, response.model, response.id[:5]) == ("completed", "gpt-5-mini", "resp_")
    assert (response.instructions, response.temperature) == ("Be brief.", 0)
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert response.usage.input_tokens_details.cached_tokens == 0
    assert response.usage.output_tokens_details.reasoning_tokens == 0


async def test_unscripted_call_gets_json_for_its_schema(client: AsyncOpenAI) -> None:
    parsed = await client.responses.parse(model="gpt-5-mini", input="Facts about Oslo", text_format=City)

    assert parsed.output_parsed == City(city="City 1", population=1)


async def test_json_object_mode_gets_some_json(client: AsyncOpenAI) -> None:
    assert (await ask(client, text={"format": {"type": "json_object"}})).output_text == '{"answer": "Answer 1"}'


async def test_usage_can_be_told(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(reply("x", usage=Usage(100, 20, cached_tokens=64, reasoning_tokens=12)))
    usage = (await ask(client)).usage

    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (100, 20, 120)
    assert (usage.input_tokens_details.cached_tokens, usage.output_tokens_details.reasoning_tokens) == (64, 12)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("plain", "plain"),
        ({"city": "Köln"}, '{"city": "Köln"}'),
        ([1, 2], "[1, 2]"),
        (City(city="Rome"), '{"city":"Rome","population":null}'),
        (reply(City(city="Rome")), '{"city":"Rome","population":null}'),
        (invalid_json("Sure!"), "Sure!"),
        (lambda body: body["model"].upper(), "GPT-5-MINI"),
    ],
)
async def test_texts(server: ModelServer, client: AsyncOpenAI, answer: Any, text: str) -> None:
    server.script(answer)

    assert (await ask(client)).output_text == text


async def test_refusal_is_a_part_of_its_own(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(refusal("No."))
    response = await ask(client)

    assert (response.status, response.output_text) == ("completed", "")
    (message,) = response.output
    assert message.type == "message"
    (part,) = message.content
    assert part.type == "refusal"
    assert part.refusal == "No."


@pytest.mark.parametrize(
    ("answer", "reason"), [(truncated('{"ci'), "max_output_tokens"), (filtered('{"ci'), "content_filter")]
)
async def test_incomplete(server: ModelServer, client: AsyncOpenAI, answer: Any, reason: str) -> None:
    server.script(answer)
    response = await ask(client)

    assert (response.status, response.output_text) == ("incomplete", '{"ci')
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == reason
    assert response.usage is not None


async def test_failed_response_has_http_status_200(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(failed("rate_limit_exceeded", "Too fast."))
    response = await ask(client)

    assert (response.status, response.output, response.usage) == ("failed", [], None)
    assert response.error is not None
    assert (response.error.code, response.error.message) == ("rate_limit_exceeded", "Too fast.")


async def test_wrong_shape_is_json_that_breaks_the_schema(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(wrong_shape())

    with pytest.raises(ValidationError) as caught:
        await client.responses.parse(model="gpt-5-mini", input="Facts", text_format=City)
    assert {error["loc"][0] for error in caught.value.errors()} == {"city", "population"}


@pytest.mark.parametrize(
    ("answer", "kind", "status", "code"),
    [
        (rate_limited(0.5), openai.RateLimitError, 429, "rate_limit_exceeded"),
        (quota_exceeded(), openai.RateLimitError, 429, "insufficient_quota"),
        (server_error(), openai.InternalServerError, 500, "server_error"),
        (server_error(503), openai.InternalServerError, 503, "server_error"),
        (unauthorized(), openai.AuthenticationError, 401, "invalid_api_key"),
        (http_error(404, code="model_not_found"), openai.NotFoundError, 404, "model_not_found"),
        (http_error(409), openai.ConflictError, 409, None),
    ],
)
async def test_http_errors(
    server: ModelServer, client: AsyncOpenAI, answer: Any, kind: type[openai.APIStatusError], status: int, code: str
) -> None:
    server.script(answer)

    with pytest.raises(kind) as caught:
        await ask(client)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert (caught.value.request_id or "").startswith("req_")
    assert server.calls[0].status == status


async def test_headers(server: ModelServer, client: AsyncOpenAI) -> None:
    raw = await client.responses.with_raw_response.create(model="m", input="x")
    assert raw.request_id is not None
    for name in ("limit-requests", "limit-tokens", "remaining-requests", "remaining-tokens", "reset-requests"):
        assert raw.headers[f"x-ratelimit-{name}"]

    server.script(
        rate_limited(0.5), http_error(429, headers={"Retry-After": "300", "x-ratelimit-remaining-tokens": "0"})
    )
    with pytest.raises(openai.RateLimitError) as caught:
        await ask(client)
    headers = caught.value.response.headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("0.5", "500")
    assert (headers["x-ratelimit-remaining-requests"], headers["x-ratelimit-reset-requests"]) == ("0", "0.5s")
    with pytest.raises(openai.RateLimitError) as caught:
        await ask(client)
    headers = caught.value.response.headers
    assert (headers["retry-after"], headers["x-ratelimit-remaining-tokens"]) == ("300", "0")


async def test_disconnect_drops_the_connection(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script(disconnect())

    with pytest.raises(openai.APIConnectionError):
        await ask(client)
    assert (server.calls[0].outcome, server.calls[0].status) == ("dropped", None)
    assert (await ask(client)).status == "completed"


async def test_a_script_is_played_in_order_and_then_ends(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script("one", "two")
    server.script("three")

    assert [(await ask(client)).output_text for _ in range(4)] == ["one", "two", "three", "A made-up answer to: Hello"]


async def test_match_chooses_the_calls(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script("Paris", match="France")
    server.script("Tokyo", match="Japan")
    server.script("brief", match=lambda body: body.get("max_output_tokens") == 5)

    assert (await ask(client, "The capital of Japan?")).output_text == "Tokyo"
    assert (await ask(client, "Hello")).output_text.startswith("A made-up")
    assert (await ask(client, "Hello", max_output_tokens=5)).output_text == "brief"
    assert (await ask(client, "Its capital?", instructions="You know all about France.")).output_text == "Paris"


async def test_match_sees_every_kind_of_input(server: ModelServer, client: AsyncOpenAI) -> None:
    server.always("found", match="needle")
    items: list[Any] = [
        {"role": "developer", "content": "a needle"},
        {"role": "user", "content": [{"type": "input_text", "text": "a needle"}]},
        {"type": "function_call_output", "call_id": "c", "output": "a needle"},
    ]
    for item in items:
        call: Any = {"type": "function_call", "call_id": "c", "name": "find", "arguments": "{}"}
        before = [call] if "output" in item else []
        response = await client.responses.create(model="m", input=[{"role": "user", "content": "Look"}, *before, item])
        assert response.output_text == "found"
    assert [call.text for call in server.calls] == ["Look", "a needle", "Look"]


async def test_standing_rules(server: ModelServer, client: AsyncOpenAI) -> None:
    server.always("old")
    server.always("new", match="Hello")
    server.script("first")

    assert [(await ask(client)).output_text for _ in range(3)] == ["first", "new", "new"]
    assert (await ask(client, "Bye")).output_text == "old"


@pytest.mark.parametrize("nonsense", [42, None, City, object()])
def test_what_is_no_answer_is_told_at_once(nonsense: Any) -> None:
    with pytest.raises(UsageError, match="a model server answers with"):
        ModelServer().script(nonsense)


async def test_an_error_in_the_tests_own_function_is_not_tried_again(server: ModelServer, client: AsyncOpenAI) -> None:
    server.script("never", match=lambda body: bool(body["no such key"]))

    with pytest.raises(openai.BadRequestError, match="KeyError: 'no such key'") as caught:
        await ask(client)
    assert caught.value.code == "test_script_error"


async def test_what_cannot_be_made_up_asks_for_a_script(client: AsyncOpenAI) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "string", "pattern": r"^(a+)-\1$"}}, "required": ["x"]}
    with pytest.raises(openai.BadRequestError, match="script has no answer"):
        await ask(client, text={"format": {"type": "json_schema", "name": "X", "schema": schema}})


def test_answers_read_well_in_a_report() -> None:
    assert repr(reply({"a": 1}, delay=2)) == """Reply(delay=2, text='{"a": 1}')"""
    assert repr(truncated("x")) == "Reply(text='x', ending='truncated')"
    assert repr(wrong_shape()) == "Generated(valid=False)"
    assert repr(disconnect()) == "Disconnect()"
