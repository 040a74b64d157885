"""One call over HTTP, from its first byte to its last; `desk` has said what it gets, here it gets it."""

import time
from functools import partial

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from pgrun.testing.answers import Disconnect, Hang, HttpError
from pgrun.testing.background import Background
from pgrun.testing.desk import Api, Desk, Taken
from pgrun.testing.exchange import Connection, Exchange
from pgrun.testing.journal import Outcome
from pgrun.testing.request import parse
from pgrun.testing.response import error_body
from pgrun.testing.work import Work


class ModelEndpoint:
    """Answers calls for a model the way a test has scripted it."""

    def __init__(self, api: Api, desk: Desk, background: Background) -> None:
        self._api = api
        self._desk = desk
        self._background = background

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the call, take it, give it what it gets."""
        http = Request(scope, receive)
        try:
            body = parse(await http.body())
        except ClientDisconnect:
            return  # before it had asked anything
        taken = self._desk.take(self._api, body, dict(http.headers))
        alone = isinstance(taken.gets, Work) and self._api.goes_on_alone(taken.request)
        if alone and isinstance(taken.gets, Work):
            self._background.start(taken.gets.make)
        await _Answering(self._api, self._desk, taken, Connection(scope, receive, send), alone).give()


class _Answering:
    """A call on its way to its answer."""

    def __init__(self, api: Api, desk: Desk, taken: Taken, connection: Connection, alone: bool) -> None:
        self._api = api
        self._desk = desk
        self._taken = taken
        self._exchange = Exchange(connection, self._note)
        self._alone = alone  # the model works on when the client has gone

    async def give(self) -> None:
        gets = self._taken.gets
        give = partial(self._give_work, gets) if isinstance(gets, Work) else partial(self._give_none, gets)
        if not self._desk.patience.takes_time(gets.answer if isinstance(gets, Work) else gets):
            await give()
        elif not await self._exchange.unless_gone(give):
            self._note("aborted", None)

    async def _give_work(self, work: Work) -> None:
        extra, cut = self._taken.headers, work.answer.cut
        if isinstance(work.answer, Hang) and work.answer.silent:
            await self._desk.patience.hold(work.answer)
        if self._taken.request.streams:
            steps = work.follow() if self._alone else work.work()
            return await self._exchange.send_stream(work, steps, self._api, extra)
        if not self._alone:
            await work.make(cut.after_events if cut else None)
        if cut:
            return self._exchange.abort()
        await self._exchange.send_json(work.body, 200, extra)

    async def _give_none(self, answer: HttpError | Disconnect) -> None:
        await self._desk.patience.hold(answer)
        if isinstance(answer, Disconnect):
            return self._exchange.abort()
        own = {name.lower(): value for name, value in answer.headers.items()}
        await self._exchange.send_json(error_body(answer), answer.status, {**self._taken.headers, **own})

    def _note(self, outcome: Outcome, status: int | None) -> None:
        if isinstance(self._taken.gets, Work) and not self._alone:
            self._api.abandon(self._taken.gets)  # which changes nothing if it has ended
        answered_at = time.monotonic() if outcome == "answered" else None
        self._desk.journal.close(self._taken.call, outcome, status=status, answered_at=answered_at)
