"""Files: uploaded by a client for a batch, written by the batch for its client."""

import time
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pgrun.testing.desk import Desk
from pgrun.testing.handler import noted
from pgrun.testing.request import RequestRejected, missing


@dataclass(frozen=True)
class File:
    """A file as it was uploaded or written."""

    name: str
    purpose: str
    content: bytes = field(repr=False)
    id: str = field(default_factory=lambda: f"file-{uuid4().hex}")
    created_at: int = field(default_factory=lambda: int(time.time()))

    @property
    def body(self) -> dict[str, Any]:
        """The provider's object for it."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.content),
            "created_at": self.created_at,
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


class Files:
    """All files of one server, and how they are reached over HTTP."""

    def __init__(self, desk: Desk) -> None:
        self._files: dict[str, File] = {}
        self.routes = [
            Route("/v1/files", noted(desk, self._upload), methods=["POST"]),
            Route("/v1/files/{file_id}", noted(desk, self._retrieve), methods=["GET"]),
            Route("/v1/files/{file_id}", noted(desk, self._delete), methods=["DELETE"]),
            Route("/v1/files/{file_id}/content", noted(desk, self._content), methods=["GET"]),
        ]

    def add(self, file: File) -> File:
        """Keep a file."""
        self._files[file.id] = file
        return file

    def find(self, file_id: str) -> File:
        """The file with this id.

        Raises:
            RequestRejected: There is none (404).
        """
        if file_id not in self._files:
            raise RequestRejected(f"No such File object: {file_id}", status=404, param="id")
        return self._files[file_id]

    async def _upload(self, request: Request) -> Response:
        parts = _parts(request.headers.get("content-type", ""), await request.body())
        if "file" not in parts:
            raise missing("file")
        if "purpose" not in parts:
            raise missing("purpose")
        name = parts["file"].get_filename() or "upload"
        return JSONResponse(self.add(File(name, _bytes(parts["purpose"]).decode(), _bytes(parts["file"]))).body)

    async def _retrieve(self, request: Request) -> Response:
        return JSONResponse(self.find(request.path_params["file_id"]).body)

    async def _delete(self, request: Request) -> Response:
        file = self.find(request.path_params["file_id"])
        del self._files[file.id]
        return JSONResponse({"id": file.id, "object": "file", "deleted": True})

    async def _content(self, request: Request) -> Response:
        return Response(self.find(request.path_params["file_id"]).content, media_type="application/octet-stream")


def _parts(content_type: str, body: bytes) -> dict[str, Message]:
    """The fields of a form; a mail is built like one, and its parser comes with Python."""
    form = BytesParser().parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    if not form.is_multipart():
        return {}
    parts = [part for part in form.get_payload() if isinstance(part, Message)]
    return {str(part.get_param("name", header="content-disposition")): part for part in parts}


def _bytes(part: Message) -> bytes:
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else b""
