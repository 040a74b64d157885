"""One call of the model, as the journal sees it: made once, or had again under the id that an attempt before has noted.

The id is noted beside the answer's coming, so it costs no time; and before anything of the answer is used. Whatever budgets and
limits there are to be is asked before a call and told after it, here and nowhere else.
"""

import logging
from dataclasses import dataclass, replace

import anyio

from pgrun.errors import AttemptError, ModelCallLost
from pgrun.models.base import Model, ModelRequest, ModelResponse, Watch
from pgrun.retry import Ambiguous
from pgrun.run.journal import Journal

_log = logging.getLogger("pgrun.run")

_LAST_WORD = 5.0  # seconds to note an id although the attempt is being stopped


@dataclass
class Calls:
    """The calls of the model in one attempt.

    Attributes:
        model: Whom they go to.
        journal: Of the run.
        ambiguous: What follows if nobody can say whether a call was answered.
    """

    model: Model
    journal: Journal
    ambiguous: Ambiguous = "retry"

    async def make(self, number: int, request: ModelRequest) -> ModelResponse:
        """Makes the call that is step `number` of the run, or takes up the one that was under way.

        Raises:
            ModelCallLost: It may have been answered, nobody can say, and it may not be made twice.
            AttemptError: As the model says.
        """
        self._decide(request)
        response = await self._take_up(number, request) or await self._ask(number, request)
        self._settle(response)
        return response

    async def _take_up(self, number: int, request: ModelRequest) -> ModelResponse | None:
        """The answer that was under way; None if there was none, or it is lost and may be asked for again."""
        found = self.journal.under_way(number)
        if found is None:
            return None
        try:
            if found.response_id is None:
                raise ModelCallLost("the worker died when it had begun to call the model, and may have been answered")
            return await _Made(self.journal, number, request.watch).by(
                self.model, replace(request, response_id=found.response_id)
            )
        except ModelCallLost as error:
            if self.ambiguous == "fail":
                raise
            _log.warning("the call of the model is made again: %s", error)
            return None

    async def _ask(self, number: int, request: ModelRequest) -> ModelResponse:
        if self.ambiguous == "fail":
            await self.journal.note_call(number, None)
        try:
            return await _Made(self.journal, number, request.watch).by(self.model, request)
        except AttemptError as error:
            if self.ambiguous == "fail" and error.answer == "unknown":
                words = f"the call may have been answered, and must not be made again: {error}"
                raise ModelCallLost(words, **error.details) from error
            raise

    def _decide(self, request: ModelRequest) -> None:
        """Whether the call may be made now: the place for budgets and limits of the fleet, which may wait here or raise."""

    def _settle(self, response: ModelResponse) -> None:
        """What the call has used, and what its provider says of its limits (`rate_limits`): the other half."""


class _Made(Watch):
    """One call that is being made; its watch, which notes what the journal has to know and hands on the rest."""

    def __init__(self, journal: Journal, number: int, watch: Watch) -> None:
        self.keeps_ids = journal.keeps_calls
        self.patience = journal.patience
        self._journal = journal
        self._number = number
        self._watch = watch
        self._response_id: str | None = None
        self._is_noted = True
        self._failure: Exception | SystemExit | None = None
        self._response: ModelResponse | None = None

    @property
    def wants_text(self) -> bool:  # type: ignore[override]
        return self._watch.wants_text

    def created(self, response_id: str) -> None:
        self._watch.created(response_id)
        if self.keeps_ids:
            self._response_id, self._is_noted = response_id, False
            self._tasks.start_soon(self._note)

    def text(self, delta: str) -> None:
        self._watch.text(delta)

    def thought(self, delta: str) -> None:
        self._watch.thought(delta)

    def call(self, call_id: str, name: str) -> None:
        self._watch.call(call_id, name)

    async def by(self, model: Model, request: ModelRequest) -> ModelResponse:
        """The answer; the id that was told meanwhile is noted when it returns, also if it raises."""
        request = replace(request, watch=self)
        if not self.keeps_ids:
            return await model.call(request)
        try:
            async with anyio.create_task_group() as self._tasks:
                try:
                    self._journal.wait(request.response_id is not None)
                    self._response = await model.call(request)
                except (Exception, SystemExit) as error:  # as itself, and not in a group
                    self._failure = self._failure or error
        finally:
            self._journal.wait(False)
            self._journal.leaves_call = self._goes_on_without_us(request)
            if not self._is_noted:
                with anyio.move_on_after(_LAST_WORD, shield=True):
                    await self._note()
        if self._failure is not None:
            raise self._failure
        assert self._response is not None
        return self._response

    def _goes_on_without_us(self, request: ModelRequest) -> bool:
        if self._response is not None or (self._response_id or request.response_id) is None:
            return False
        return not isinstance(self._failure, AttemptError) or self._failure.answer == "pending"

    async def _note(self) -> None:
        try:
            await self._journal.note_call(self._number, self._response_id)
            if self._response is None and self._failure is None:
                self._journal.wait(True)
        except Exception as error:
            self._failure = error
            self._tasks.cancel_scope.cancel()
        self._is_noted = True
