"""One batch: the requests of a file, taken at the desk one by one and answered into another file."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import anyio

from pgrun.testing.answers import Disconnect, HttpError
from pgrun.testing.desk import Api, Desk, Taken
from pgrun.testing.files import File, Files
from pgrun.testing.limits import Meter
from pgrun.testing.request import parse
from pgrun.testing.response import error_body
from pgrun.testing.work import Work

Line = dict[str, Any]


@dataclass(frozen=True)
class Order:
    """What a batch has been created with."""

    input: File
    headers: Mapping[str, str]
    metadata: Any = None


class Batch:
    """Goes from validating over in_progress and finalizing to completed, or ends as failed or cancelled.

    Attributes:
        body: The provider's object for it, as it is now.
    """

    def __init__(self, api: Api, desk: Desk, files: Files, order: Order) -> None:
        self._api = api
        # What a batch asks does not count against the limits of direct calls.
        self._desk = replace(desk, meter=Meter(None))
        self._files = files
        self._order = order
        self._taken: dict[str, Taken] = {}
        self._answers: dict[str, Line] = {}
        self._scope = anyio.CancelScope()
        self.body = _new_body(api.path, order)

    async def run(self) -> None:
        """Do all of it; called again, it goes on with what has not been answered."""
        lines = [parse(line) for line in self._order.input.content.splitlines() if line.strip()]
        if errors := _errors(lines, self._api.path):
            return self._enter("failed", errors={"object": "list", "data": errors})
        if self.body["status"] == "validating":
            self._enter("in_progress")
        with anyio.CancelScope() as self._scope:
            async with anyio.create_task_group() as tasks:
                for line in lines if self.body["status"] == "in_progress" else []:
                    if line is not None and line["custom_id"] not in self._answers:
                        tasks.start_soon(self._answer, line)
        if self.body["status"] != "cancelling":
            self._enter("finalizing")
        self._finish(len(lines))

    def cancel(self) -> None:
        """Leave off; what has been answered by then stays. Nothing happens if it has ended."""
        if self.body["status"] in ("validating", "in_progress"):
            self._enter("cancelling")
            self._scope.cancel()

    async def _answer(self, line: Line) -> None:
        key = line["custom_id"]
        if key not in self._taken:
            self._taken[key] = self._desk.take(self._api, line["body"], self._order.headers)
        taken = self._taken[key]
        gets = taken.gets
        if isinstance(gets, Work):
            await gets.make()
            status, body = 200, gets.body
        else:
            await self._desk.patience.hold(gets)
            # Nobody's connection can break here; the provider tries such a request again and then reports it like this.
            error = HttpError(500, "The request could not be answered.") if isinstance(gets, Disconnect) else gets
            status, body = error.status, error_body(error)
        response = {"status_code": status, "request_id": taken.headers["x-request-id"], "body": body}
        self._answers[key] = {"id": f"batch_req_{uuid4().hex}", "custom_id": key, "response": response, "error": None}
        self._desk.journal.close(taken.call, "answered", status=status, answered_at=time.monotonic())

    def _finish(self, total: int) -> None:
        for key, taken in self._taken.items():
            if key not in self._answers and isinstance(taken.gets, Work):
                self._api.abandon(taken.gets)
            self._desk.journal.close(taken.call, "dropped")
        answered = {key: answer["response"]["status_code"] == 200 for key, answer in self._answers.items()}
        good, bad = [[self._answers[key] for key in answered if answered[key] is kind] for kind in (True, False)]
        self._enter(
            "cancelled" if self.body["status"] == "cancelling" else "completed",
            output_file_id=self._written("output", good),
            error_file_id=self._written("error", bad),
            request_counts={"total": total, "completed": len(good), "failed": len(bad)},
        )

    def _written(self, name: str, lines: list[Line]) -> str | None:
        if not lines:
            return None
        content = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines).encode()
        return self._files.add(File(f"{self.body['id']}_{name}.jsonl", "batch_output", content)).id

    def _enter(self, status: str, **facts: Any) -> None:
        self.body = {**self.body, "status": status, f"{status}_at": int(time.time()), **facts}


def _new_body(path: str, order: Order) -> dict[str, Any]:
    now = int(time.time())
    return {
        "id": f"batch_{uuid4().hex}",
        "object": "batch",
        "endpoint": path,
        "errors": None,
        "input_file_id": order.input.id,
        "completion_window": "24h",
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": now,
        "expires_at": now + 86_400,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": order.metadata,
    }


def _errors(lines: list[Line | None], path: str) -> list[dict[str, Any]]:
    """Why the provider would not begin with this file: one entry per line that is wrong."""
    found: list[dict[str, Any]] = []
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        code, message = _wrong_with(line, path, seen)
        if code:
            found.append({"code": code, "message": message, "param": None, "line": number})
    return found or ([] if lines else [{"code": "empty_file", "message": "The file has no requests.", "line": None}])


def _wrong_with(line: Line | None, path: str, seen: set[str]) -> tuple[str | None, str]:
    if line is None:
        return "invalid_json_line", "This line is not parseable as valid JSON."
    key = line.get("custom_id")
    if not isinstance(key, str) or not isinstance(line.get("body"), dict):
        return "missing_required_parameter", "Each line has to have a 'custom_id' and a 'body'."
    if key in seen:
        return "duplicate_custom_id", f"The custom_id '{key}' for this request is a duplicate of another request."
    seen.add(key)
    if line.get("url") != path or line.get("method") != "POST":
        return "mismatched_url", f"The URL provided for this request does not match the batch endpoint '{path}'."
    return None, ""
