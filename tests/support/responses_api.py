"""A server that answers with the Response objects it is given, for output that `pgrun.testing` does not make."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ResponsesApi:
    """Its address, and the bodies of the requests it got."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.asked: list[dict[str, Any]] = []


@contextmanager
def responses_api(*outputs: list[dict[str, Any]]) -> Iterator[ResponsesApi]:
    """Serves one `output` list of a completed response after the other."""
    waiting = iter(outputs)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            api.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            body = json.dumps(response_body(*next(waiting))).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        api = ResponsesApi(f"http://127.0.0.1:{server.server_address[1]}/v1")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()


def response_body(*output: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """A Response object as the provider sends it."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-5-mini-2026",
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "output": [*output],
        "usage": {
            "input_tokens": 10,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 15,
        },
        **facts,
    }
