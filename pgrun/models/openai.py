"""`OpenAIResponses`: a model behind the Responses API, OpenAI's own or a compatible one. Programs find `OpenAIChat` here, too.

The SDK only carries the request: its retries are off, because the queue retries; its parsing is not used, because it throws
a paid answer away when the answer does not fit.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from typing import Any

import anyio

from pgrun.errors import AttemptError, ModelRejected, ModelUnavailable
from pgrun.models._chat_request import FINAL
from pgrun.models._openai_answer import response_from
from pgrun.models._openai_client import Endpoint, endpoint_of, too_late
from pgrun.models._openai_failures import cannot_go_on, names
from pgrun.models._openai_fields import given, usage_of
from pgrun.models._openai_model import OpenAIModel, timed
from pgrun.models._openai_request import chosen, described, input_items
from pgrun.models._openai_tools import tool_arguments
from pgrun.models._responses_call import ResponsesCall
from pgrun.models.base import Message, ModelRequest, ModelResponse, PreviousForgotten, Watch
from pgrun.models.openai_chat import OpenAIChat as OpenAIChat
from pgrun.run.metrics import RunMetrics

# These models think before they answer and want their responses stored; for others `store` is left to the account.
_STORES = re.compile(r"(o3|o4-mini|gpt-5|gpt-6)")
_THOUGHTS = "reasoning.encrypted_content"

# What a server may lack.
_BACKGROUND = "background mode"
_STREAMS = "streams"


class OpenAIResponses(OpenAIModel):
    """A model of OpenAI, or of a server that speaks the Responses API.

    Args:
        id: The provider's name of the model.
        api_key: Used in this process only and never stored; other workers have their own. None: ``$OPENAI_API_KEY``.
        base_url: Another server. It is stored with the runs; a worker sends its own key there only if the URL is also its
            ``$OPENAI_BASE_URL`` or listed in ``$PGRUN_TRUSTED_BASE_URLS`` (separated by commas). None: ``$OPENAI_BASE_URL``.
        organization: Sent as OpenAI-Organization. None: ``$OPENAI_ORG_ID``.
        timeout: Seconds one call may take in all.
        temperature: As in the API, like the following ones; None is not sent.
        top_p: Nucleus sampling.
        max_output_tokens: Token limit of one answer, thinking included.
        reasoning: The whole ``reasoning`` object, for what the next two do not cover.
        reasoning_effort: ``reasoning.effort``.
        reasoning_summary: ``reasoning.summary``.
        verbosity: ``text.verbosity``.
        store: Whether the provider keeps the response. None: true for models that reason, else not sent.
        metadata: Up to 16 strings the provider keeps with the response.
        user: Your name of the end user.
        truncation: What happens when the input is too long.
        service_tier: auto, default, flex, priority …
        parallel_tool_calls: Whether the model may call several tools at once.
        include: Additional output to include.
        extra_body: Merged into the request body as it is.
        background: Whether the provider goes on with an answer when nobody listens any more, so that after a crash, a deploy or a
            lost connection the same answer is taken up again instead of being paid for twice. None: for runs in a database, if
            the server has background mode and `store` is not False. True: always, and it is an error if the server has none.
    """

    provider: str = "openai.responses"
    _names = (
        *("temperature", "top_p", "max_output_tokens", "reasoning", "reasoning_effort", "reasoning_summary"),
        *("verbosity", "store", "metadata", "user", "truncation", "service_tier", "parallel_tool_calls", "include"),
        *("extra_body", "background"),
    )

    def __init__(
        self,
        id: str = "gpt-5-mini",
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        timeout: float = 600.0,
        temperature: float | None = None,
        top_p: float | None = None,
        max_output_tokens: int | None = None,
        reasoning: Mapping[str, Any] | None = None,
        reasoning_effort: str | None = None,
        reasoning_summary: str | None = None,
        verbosity: str | None = None,
        store: bool | None = None,
        metadata: Mapping[str, str] | None = None,
        user: str | None = None,
        truncation: str | None = None,
        service_tier: str | None = None,
        parallel_tool_calls: bool | None = None,
        include: list[str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        background: bool | None = None,
    ) -> None:
        self._declare(locals())

    @property
    def keeps_answers(self) -> bool:
        """See `KeepingModel`."""
        return self._options.get("store") is not False

    async def call(self, request: ModelRequest) -> ModelResponse:
        """See `Model.call`."""
        try:
            return await self._call(request)
        except ModelRejected as error:
            if request.previous_response_id is None or not cannot_go_on(error):
                raise
            raise PreviousForgotten(str(error), **error.details) from error

    async def _call(self, request: ModelRequest) -> ModelResponse:
        endpoint = await endpoint_of(self._account)
        call = ResponsesCall(endpoint, request.watch, timeout=self.timeout)
        try:
            with anyio.fail_after(self.timeout):
                answer = await self._answer(call, endpoint, request)
        except TimeoutError:
            with self._pricing():
                answer = await _left_off(call, too_late(endpoint, self.timeout))
        except anyio.get_cancelled_exc_class():
            if call.response_id is not None and not request.watch.keeps_ids:
                with suppress(AttemptError):
                    await call.stop()
            raise
        with self._pricing():
            response = replace(self._priced(response_from(answer)), rate_limits=call.rate_limits)
        if request.response_id is None:  # else nobody here knows when it began
            response = timed(response, call.teller.time_to_first_piece)
        call.teller.tell_rest(response)
        return response

    async def stop(self, response_id: str) -> RunMetrics | None:
        """See `BackgroundModel.stop`."""
        call = ResponsesCall(await endpoint_of(self._account), Watch(), timeout=self.timeout)
        call.response_id = response_id
        answer = await call.stop()
        if answer is None:
            return None
        used = usage_of(answer, "input", "output")
        return self._with_cost(used, given(answer, "model")) if used.total_tokens else used

    def body(self, request: ModelRequest) -> dict[str, Any]:
        """The arguments of ``responses.create`` for a request."""
        options = {name: value for name, value in self._options.items() if name != "background"}
        told, request = _told_apart(request)
        body: dict[str, Any] = {
            "model": self.id,
            **told,
            "input": input_items(_shown(request)),
            "reasoning": _reasoning(options),
            **tool_arguments(request, described, chosen),
        }
        if _STORES.match(self.id):
            body["store"] = options.get("store", True)
            if request.tools and not body["store"]:  # else its thoughts could not be sent back after a call
                options["include"] = [*dict.fromkeys([*options.get("include", ()), _THOUGHTS])]
        if text := _text(request, options):
            body["text"] = text
        return body | options

    async def _answer(self, call: ResponsesCall, endpoint: Endpoint, request: ModelRequest) -> Any:
        if request.response_id is not None:
            return await call.attach(request.response_id)
        body, wants_background = self.body(request), self._wants_background(request.watch)
        if wants_background and ((self.id, _BACKGROUND) not in endpoint.lacks or self._options.get("background")):
            try:
                answer = await call.ask({**body, "background": True, "stream": True})
            except ModelRejected as error:
                if self._options.get("background") or not names(error, "background", "stream"):
                    raise
            else:
                if call.response_id is None and not given(answer, "background"):
                    endpoint.note_lack(self.id, _BACKGROUND)
                return answer
        # A request that is not accepted costs nothing. Whether it was for what it asked for, shows if it is without.
        answer = await self._ask_in_foreground(call, endpoint, body, wants_text=request.watch.wants_text)
        if wants_background:
            endpoint.note_lack(self.id, _BACKGROUND)
        return answer

    async def _ask_in_foreground(
        self, call: ResponsesCall, endpoint: Endpoint, body: dict[str, Any], *, wants_text: bool
    ) -> Any:
        if wants_text and (self.id, _STREAMS) not in endpoint.lacks:
            try:
                return await call.ask({**body, "stream": True})
            except ModelRejected as error:
                if not names(error, "stream"):
                    raise
            answer = await call.ask(body)
            endpoint.note_lack(self.id, _STREAMS)
            return answer
        return await call.ask(body)

    def _wants_background(self, watch: Watch) -> bool:
        given: bool | None = self._options.get("background")
        return watch.keeps_ids and self._options.get("store") is not False if given is None else given


async def _left_off(call: ResponsesCall, late: ModelUnavailable) -> Any:
    """The `Response` that was completed just before the provider left it off.

    Raises:
        ModelUnavailable: It was left off; `metrics` has what it used all the same.
    """
    late.answer = "unknown"
    if call.response_id is None:
        raise late
    try:
        answer = await call.stop()
    except AttemptError:
        late.answer = "pending"
        raise late from None
    if getattr(answer, "status", None) == "completed":
        return answer
    late.answer, late.metrics = "none", usage_of(answer, "input", "output")
    raise late


def _told_apart(request: ModelRequest) -> tuple[dict[str, Any], ModelRequest]:
    """What is to be no part of the conversation that the provider keeps, and the request without it."""
    if not request.is_kept:
        return {}, request
    told = [*takewhile(lambda message: message.role == "system", request.messages)]
    rest = request.messages[len(told) :]
    if not rest:  # something has to be asked
        told, rest = [], request.messages
    instructions = "\n\n".join(message.content for message in told)
    facts = {"instructions": instructions, "previous_response_id": request.previous_response_id}
    return {name: value for name, value in facts.items() if value}, replace(request, messages=rest)


def _shown(request: ModelRequest) -> tuple[Message, ...]:
    """The conversation; in JSON mode the schema is shown before it, because the provider is not told of it."""
    if request.output is None or not request.output.json_mode:
        return request.messages
    schema = json.dumps(request.output.schema, ensure_ascii=False)
    return (Message("system", FINAL.format(schema=schema)), *request.messages)


def _reasoning(options: dict[str, Any]) -> dict[str, Any]:
    given = {"effort": options.pop("reasoning_effort", None), "summary": options.pop("reasoning_summary", None)}
    return {**options.pop("reasoning", {}), **{name: value for name, value in given.items() if value is not None}}


def _text(request: ModelRequest, options: dict[str, Any]) -> dict[str, Any]:
    text = {"verbosity": options.pop("verbosity")} if "verbosity" in options else {}
    if request.output is not None:
        output = request.output
        schema = {"type": "json_schema", "name": output.name, "schema": output.schema, "strict": True}
        text["format"] = {"type": "json_object"} if output.json_mode else schema
    return text
