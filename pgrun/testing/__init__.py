"""For testing programs that use pgrun: a model server for their agents, and the queue under the control of a test.

`drain`, `inline`, `advance` and `assert_submitted` are about the queue, see `pgrun.testing.runs`; they work on the real one.

All else is an OpenAI-compatible model server on the loopback, for testing agents through the real client. It stands where the
provider stands: the agent's own HTTP client calls it, and a test says what comes back.

::

    from pgrun.testing import ModelServer, rate_limited

    with ModelServer() as server:
        server.script(rate_limited(retry_after=0.1), {"city": "Tokyo"})
        client = AsyncOpenAI(base_url=server.base_url, api_key=server.api_key, max_retries=0)
        ...
        assert [call.status for call in server.calls] == [429, 200]

What is not scripted gets a made-up answer that is valid for the schema the call asks for. One call goes this way
through the package: `server` (thread and public face) → `loopback` (HTTP) → `endpoint` (one call) → `desk` →
`responses` or `chat` with `acceptance`, `tools` and `strictness` (would the provider accept it?) → `limits` → `script`
and `makeup` (which answer?) → `response` and `stream` (its body and the events that lead there) → `work` (a model goes
through them, at the pace of `patience`, in the foreground or in the `background`) → `exchange` (what the client gets of
it). What a test can look at is in the `journal`, the `store` and the `bill`.

Starting a server needs the extra ``pgrun[testing]``; importing this package does not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pgrun.testing.answers import (
    Answer,
    ToolCall,
    Usage,
    failed,
    filtered,
    invalid_json,
    refusal,
    reply,
    tool_call,
    truncated,
    wrong_shape,
)
from pgrun.testing.faults import (
    cut,
    disconnect,
    hang,
    http_error,
    quota_exceeded,
    rate_limited,
    server_error,
    unauthorized,
)
from pgrun.testing.journal import Call, Lookup
from pgrun.testing.limits import Limits
from pgrun.testing.server import ModelServer

if TYPE_CHECKING:
    from pgrun.testing.runs import advance, assert_submitted, drain, inline

__all__ = [
    "Answer",
    "Call",
    "Limits",
    "Lookup",
    "ModelServer",
    "ToolCall",
    "Usage",
    "advance",
    "assert_submitted",
    "cut",
    "disconnect",
    "drain",
    "failed",
    "filtered",
    "hang",
    "http_error",
    "inline",
    "invalid_json",
    "quota_exceeded",
    "rate_limited",
    "refusal",
    "reply",
    "server_error",
    "tool_call",
    "truncated",
    "unauthorized",
    "wrong_shape",
]


def __getattr__(name: str) -> Any:
    """What is about the queue loads the whole package, which the model server does without."""
    if name not in ("advance", "assert_submitted", "drain", "inline"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("pgrun.testing.runs"), name)
