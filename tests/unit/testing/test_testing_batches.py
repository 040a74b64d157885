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


def line(key: str, text: str, url: str = "/v1/responses") -> dict[str, Any]:
    given = {"input": text} if url == "/v1/responses" else {"messages": [{"role": "user", "content": text}]}
    return {"custom_id": key, "method": "POST", "url": url, "body": {"model": "m", **given}}


def upload(blocking: OpenAI, lines: list[Any], purpose: Any = "batch") -> FileObject:
    content = "\n".join(each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in lines)
    return blocking.files.create(file=("input.jsonl", content.encode()), purpose=purpose)


def begin(blocking: OpenAI, lines: list[Any], endpoint: Any = "/v1/responses") -> Batch:
    file = upload(blocking, lines)
    return blocking.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")


def until(blocking: OpenAI, batch_id: str, *statuses: str) -> Batch:
    for _ in range(2000):
        batch = blocking.batches.retrieve(batch_id)
        if batch.status in statuses:
            Batch.model_validate(batch.model_dump(exclude_unset=True))
            return batch
    raise TimeoutError(batch)


def answers(blocking: OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    lines = [json.loads(each) for each in blocking.files.content(file_id or "").text.splitlines()]
    return {each["custom_id"]: each["response"] for each in lines}


def test_files_come_back_as_they_went_up(blocking: OpenAI) -> None:
    file = upload(blocking, [line("a", "Köln? ☃")])

    assert (file.filename, file.purpose, file.status) == ("input.jsonl", "batch", "processed")
    assert blocking.files.retrieve(file.id) == file
    assert json.loads(blocking.files.content(file.id).content) == line("a", "Köln? ☃")
    assert file.bytes == len(blocking.files.content(file.id).content)
    blocking.files.delete(file.id)
    with pytest.raises(openai.NotFoundError, match="No such File object"):
        blocking.files.content(file.id)


@pytest.mark.parametrize("endpoint", ["/v1/responses", "/v1/chat/completions"])
def test_every_request_is_answered_and_paid(server: ModelServer, blocking: OpenAI, endpoint: str) -> None:
    server.always(lambda body: reply(f"Köln {len(json.dumps(body))}", usage=Usage(10, 5)))
    batch = begin(blocking, [line(f"r{at}", "x" * at, endpoint) for at in range(5)], endpoint)
    assert (batch.status, batch.endpoint, batch.object) == ("validating", endpoint, "batch")

    done = until(blocking, batch.id, "completed")
    assert done.request_counts
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (5, 5, 0)
    assert done.error_file_id is None
    found = answers(blocking, done.output_file_id)
    assert set(found) == {f"r{at}" for at in range(5)}
    assert {each["status_code"] for each in found.values()} == {200}
    assert {each["body"]["id"] for each in found.values()} == set(server.paid_by_response)
    assert server.paid_tokens == Usage(50, 25)
    assert [call.outcome for call in server.calls] == ["answered"] * 5


def test_requests_that_fail_are_in_a_file_of_their_own(server: ModelServer, blocking: OpenAI) -> None:
    server.script(server_error(), match="broken")
    server.script(disconnect(), match="gone")
    wrong = line("wrong", "x")
    del wrong["body"]["input"]
    batch = begin(blocking, [line("good", "x"), line("bad", "broken"), line("lost", "gone"), wrong])

    done = until(blocking, batch.id, "completed")
    assert list(answers(blocking, done.output_file_id)) == ["good"]
    errors = answers(blocking, done.error_file_id)
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
    server: ModelServer, blocking: OpenAI, lines: list[Any], code: str
) -> None:
    failed = until(blocking, begin(blocking, lines).id, "failed")

    assert failed.errors
    assert failed.errors.data
    assert failed.errors.data[0].code == code
    assert server.calls == []


def test_cancelling_keeps_what_was_answered(server: ModelServer, blocking: OpenAI) -> None:
    server.script(hang(), match="slow")
    batch = begin(blocking, [line("quick", "x"), line("slow", "slow")])
    server.wait_for_calls(1, outcome="answered")
    assert blocking.batches.cancel(batch.id).status == "cancelling"

    done = until(blocking, batch.id, "cancelled")
    assert list(answers(blocking, done.output_file_id)) == ["quick"]
    assert server.paid == 1
    assert {call.outcome for call in server.calls} == {"answered", "dropped"}
    assert blocking.batches.cancel(batch.id).status == "cancelled"


def test_a_batch_goes_on_when_a_stopped_server_is_back(server: ModelServer, blocking: OpenAI) -> None:
    server.script(hang(), match="slow")
    batch = begin(blocking, [line("quick", "x"), line("slow", "slow")])
    server.wait_for_calls(1, outcome="answered")
    server.stop()
    server.start()
    while until(blocking, batch.id, "in_progress", "completed").status != "completed":
        server.release()

    assert set(answers(blocking, until(blocking, batch.id, "completed").output_file_id)) == {"quick", "slow"}
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
def test_batches_the_provider_would_not_take(blocking: OpenAI, body: dict[str, Any], param: str) -> None:
    file = upload(blocking, [line("a", "x")])
    with pytest.raises(openai.BadRequestError) as caught:
        blocking.batches.create(
            input_file_id=file.id, endpoint="/v1/responses", completion_window="24h", extra_body=body
        )
    assert caught.value.param == param


def test_batches_need_a_file_that_is_there_for_them(blocking: OpenAI) -> None:
    other = upload(blocking, [line("a", "x")], "user_data")
    with pytest.raises(openai.BadRequestError, match="purpose"):
        blocking.batches.create(input_file_id=other.id, endpoint="/v1/responses", completion_window="24h")
    with pytest.raises(openai.NotFoundError):
        blocking.batches.create(input_file_id="file-0", endpoint="/v1/responses", completion_window="24h")
    with pytest.raises(openai.NotFoundError, match="No batch found"):
        blocking.batches.retrieve("batch_0")


@pytest.mark.parametrize(
    ("form", "files", "param"), [({"purpose": "batch"}, [], "file"), ({}, [("file", b"x")], "purpose")]
)
def test_uploads_are_forms_with_a_file_and_a_purpose(
    blocking: OpenAI, form: dict[str, str], files: list[Any], param: str
) -> None:
    headers: Any = {"Content-Type": "multipart/form-data"}
    with pytest.raises(openai.BadRequestError) as caught:
        blocking.post("/files", cast_to=object, body=form, files=files, options={"headers": headers})
    assert caught.value.param == param
