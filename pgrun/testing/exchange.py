"""One HTTP exchange at the level of ASGI: `endpoint` answers through it, and may also leave without any answer.

No request handler of a framework, because it has to see when the client disconnects, to do something just before the
last byte of the answer goes out, and sometimes to cut the connection.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from pgrun.testing.desk import Api
from pgrun.testing.journal import Outcome
from pgrun.testing.work import Step, Work

Note = Callable[[Outcome, int | None], None]


@dataclass(frozen=True)
class Connection:
    """The two ends of ASGI and its description of the request."""

    scope: Scope
    receive: Receive
    send: Send


class Exchange:
    """A request that has been read and now gets its answer.

    Args:
        connection: Whose request it is.
        note: Called with the outcome and the HTTP status just before the last of the answer goes out or the connection
            is cut. A client that has read its answer may rely on what that writes down, and after the bytes are out the
            client's thread may well run before this one.
    """

    def __init__(self, connection: Connection, note: Note) -> None:
        self._connection = connection
        self._note = note

    async def unless_gone(self, do: Callable[[], Awaitable[None]]) -> bool:
        """Do this to the end and return True, or leave off as soon as the client has gone and return False."""
        done = False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._until_gone, tasks.cancel_scope)
            await do()
            done = True
            tasks.cancel_scope.cancel()
        return done

    async def send_json(self, body: Mapping[str, Any], status: int, headers: Mapping[str, str]) -> None:
        """Send a whole answer."""
        response = JSONResponse(body, status, headers)
        self._note("answered", status)
        await response(self._connection.scope, self._connection.receive, self._connection.send)

    async def send_stream(
        self, work: Work, steps: AsyncGenerator[Step, None], api: Api, headers: Mapping[str, str]
    ) -> None:
        """Send each of `steps` as a server-sent event, to the end or to where the work's answer is cut."""
        sent = 0
        async with aclosing(steps):
            while sent != work.cut_after and (step := await anext(steps, None)):
                if not sent:
                    await self._begin_stream(headers)
                if step.final:
                    self._note("answered", 200)
                await self._send_body(api.frame(step), more=True)
                sent += 1
        cut = work.answer.cut
        if cut is None or sent != work.cut_after:
            self._note("answered", 200)
            await self._send_body(b"", more=False)
        elif not sent or not (cut.clean or cut.error):
            self.abort()
        else:
            self._note("dropped", None)
            last = api.frame(Step(api.error_event(cut.error, sent))) if cut.error else b""
            await self._send_body(last, more=False)

    def abort(self) -> None:
        """Cut the connection."""
        self._note("dropped", None)
        self._connection.scope["state"]["cut"]()

    async def _until_gone(self, scope: anyio.CancelScope) -> None:
        while (await self._connection.receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _begin_stream(self, headers: Mapping[str, str]) -> None:
        usual = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        raw = [(name.encode(), value.encode()) for name, value in {**usual, **headers}.items()]
        await self._connection.send({"type": "http.response.start", "status": 200, "headers": raw})

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        await self._connection.send({"type": "http.response.body", "body": body, "more_body": more})
