"""Batches through the real client: a file of requests goes up, a file of answers comes down."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import Batch, FileObject

from pgrun.testing import Limits, ModelServer, Usage, disconnect, hang, reply, server_error


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(limits=Limits(requests=1, window=3600)) as server:  # which a batch is not held to
        yield server


@pytest.fixture
def client(server: ModelServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0) as client:
        yield client


def line(key: str, text: str, url: str = "/v1/responses") -> dict[str, Any]:
    given = {"input": text} if url == "/v1/responses" else {"messages": [{"role": "user", "content": text}]}
    return {"custom_id": key, "method": "POST", "url": url, "body": {"model": "m", **given}}


def upload(client: OpenAI, lines: list[Any], purpose: Any = "batch") -> FileObject:
    content = "\n".join(each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in lines)
    return client.files.create(file=("input.jsonl", content.encode()), purpose=purpose)


def begin(client: OpenAI, lines: list[Any], endpoint: Any = "/v1/responses") -> Batch:
    file = upload(client, lines)
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")


def until(client: OpenAI, batch_id: str, *statuses: str) -> Batch:
    for _ in range(2000):
        batch = client.batches.retrieve(batch_id)
        if batch.status in statuses:
            Batch.model_validate(batch.model_dump(exclude_unset=True))
            return batch
    raise TimeoutError(batch)


def answers(client: OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    lines = [json.loads(each) for each in client.files.content(file_id or "").text.splitlines()]
    return {each["custom_id"]: each["response"] for each in lines}


def test_files_come_back_as_they_went_up(client: OpenAI) -> None:
    file = upload(client, [line("a", "Köln? ☃")])

    assert (file.filename, file.purpose, file.status) == ("input.jsonl", "batch", "processed")
    assert client.files.retrieve(file.id) == file
    assert json.loads(client.files.content(file.id).content) == line("a", "Köln? ☃")
    assert file.bytes == len(client.files.content(file.id).content)
    client.files.delete(file.id)
    with pytest.raises(openai.NotFoundError, match="No such File object"):
        client.files.content(file.id)


@pytest.mark.parametrize("endpoint", ["/v1/responses", "/v1/chat/completions"])
def test_every_request_is_answered_and_paid(server: ModelServer, client: OpenAI, endpoint: str) -> None:
    server.always(lambda body: reply(f"Köln {len(json.dumps(body))}", usage=Usage(10, 5)))
    batch = begin(client, [line(f"r{at}", "x" * at, endpoint) for at in range(5)], endpoint)
    assert (batch.status, batch.endpoint, batch.object) == ("validating", endpoint, "batch")

    done = until(client, batch.id, "completed")
    assert done.request_counts
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (5, 5, 0)
    assert done.error_file_id is None
    found = answers(client, done.output_file_id)
    assert set(found) == {f"r{at}" for at in range(5)}
    assert {each["status_code"] for each in found.values()} == {200}
    assert {each["body"]["id"] for each in found.values()} == set(server.paid_by_response)
    assert server.paid_tokens == Usage(50, 25)
    assert [call.outcome for call in server.calls] == ["answered"] * 5


def test_requests_that_fail_are_in_a_file_of_their_own(server: ModelServer, client: OpenAI) -> None:
    server.script(server_error(), match="broken")
    server.script(disconnect(), match="gone")
    wrong = line("wrong", "x")
    del wrong["body"]["input"]
    batch = begin(client, [line("good", "x"), line("bad", "broken"), line("lost", "gone"), wrong])

    done = until(client, batch.id, "completed")
    assert list(answers(client, done.output_file_id)) == ["good"]
    errors = answers(client, done.error_file_id)
    assert {key: each["status_code"] for key, each in errors.items()} == {"bad": 500, "lost": 500, "wrong": 400}
    assert errors["wrong"]["body"]["error"]["param"] == "input"


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["no json"], "invalid_json_line"),
        ([], "empty_file"),
        ([{"custom_id": "a"}], "missing_required_parameter"),
        ([line("a", "x"), line("a", "y")], "duplicate_custom_id"),
        ([line("a", "x", "/v1/chat/completions")], "mismatched_url"),
    ],
)
def test_a_file_that_is_wrong_is_not_begun_with(
    server: ModelServer, client: OpenAI, lines: list[Any], code: str
) -> None:
    failed = until(client, begin(client, lines).id, "failed")

    assert failed.errors
    assert failed.errors.data
    assert failed.errors.data[0].code == code
    assert server.calls == []


def test_cancelling_keeps_what_was_answered(server: ModelServer, client: OpenAI) -> None:
    server.script(hang(), match="slow")
    batch = begin(client, [line("quick", "x"), line("slow", "slow")])
    server.wait_for_calls(1, outcome="answered")
    assert client.batches.cancel(batch.id).status == "cancelling"

    done = until(client, batch.id, "cancelled")
    assert list(answers(client, done.output_file_id)) == ["quick"]
    assert server.paid == 1
    assert {call.outcome for call in server.calls} == {"answered", "dropped"}
    assert client.batches.cancel(batch.id).status == "cancelled"


def test_a_batch_goes_on_when_a_stopped_server_is_back(server: ModelServer, client: OpenAI) -> None:
    server.script(hang(), match="slow")
    batch = begin(client, [line("quick", "x"), line("slow", "slow")])
    server.wait_for_calls(1, outcome="answered")
    server.stop()
    server.start()
    while until(client, batch.id, "in_progress", "completed").status != "completed":
        server.release()

    assert set(answers(client, until(client, batch.id, "completed").output_file_id)) == {"quick", "slow"}
    assert server.paid == len(server.calls) == 2


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input_file_id": ""}, "input_file_id"),
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"endpoint": ["/v1/responses"]}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
    ],
)
def test_batches_the_provider_would_not_take(client: OpenAI, body: dict[str, Any], param: str) -> None:
    file = upload(client, [line("a", "x")])
    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h", extra_body=body)
    assert caught.value.param == param


def test_batches_need_a_file_that_is_there_for_them(client: OpenAI) -> None:
    other = upload(client, [line("a", "x")], "user_data")
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.batches.create(input_file_id=other.id, endpoint="/v1/responses", completion_window="24h")
    with pytest.raises(openai.NotFoundError):
        client.batches.create(input_file_id="file-0", endpoint="/v1/responses", completion_window="24h")
    with pytest.raises(openai.NotFoundError, match="No batch found"):
        client.batches.retrieve("batch_0")


@pytest.mark.parametrize(
    ("form", "files", "param"), [({"purpose": "batch"}, [], "file"), ({}, [("file", b"x")], "purpose")]
)
def test_uploads_are_forms_with_a_file_and_a_purpose(
    client: OpenAI, form: dict[str, str], files: list[Any], param: str
) -> None:
    headers: Any = {"Content-Type": "multipart/form-data"}
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/files", cast_to=object, body=form, files=files, options={"headers": headers})
    assert caught.value.param == param
