"""`OpenAIChat`: a model behind the Chat Completions API, which nearly every server speaks.

For OpenAI's own models `OpenAIResponses` is the better choice: there they find their earlier thoughts again after a tool call.
"""

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, get_args

import anyio

from pgrun.errors import ModelRejected, UsageError
from pgrun.models._chat_answer import answer_from
from pgrun.models._chat_request import StructuredOutput, chat_messages, chosen, described, response_format
from pgrun.models._chat_stream import assembled, completion_of
from pgrun.models._first_piece import FirstPiece
from pgrun.models._openai_client import Endpoint, endpoint_of, in_our_words, too_late
from pgrun.models._openai_failures import names, uncertain
from pgrun.models._openai_model import OpenAIModel, timed
from pgrun.models._openai_reply import events, is_stream, rate_limits, whole
from pgrun.models._openai_tools import tool_arguments
from pgrun.models.base import ModelRequest, ModelResponse, Watch

_STREAMS = "streams"


class OpenAIChat(OpenAIModel):
    """A model behind the Chat Completions API: vLLM, Ollama, OpenRouter, LiteLLM …, or OpenAI itself.

    Args:
        id: The server's name of the model.
        api_key: Used in this process only and never stored; other workers have their own. None: ``$OPENAI_API_KEY``. A server
            that asks for none gets any text.
        base_url: The server, up to ``/v1``. It is stored with the runs; a worker sends its own key there only if the URL is
            also its ``$OPENAI_BASE_URL`` or listed in ``$PGRUN_TRUSTED_BASE_URLS`` (separated by commas).
            None: ``$OPENAI_BASE_URL``.
        organization: Sent as OpenAI-Organization. None: ``$OPENAI_ORG_ID``.
        timeout: Seconds one call may take in all.
        structured_output: How the server is told what a typed answer has to look like. ``json_schema``: it holds the model to
            the schema. ``json_object``: it holds it to JSON, and the prompt shows the schema. ``prompt``: only the prompt does,
            for servers that know neither. The answer is validated and repaired in every case.
        temperature: As in the API, like the following ones; None is not sent.
        top_p: Nucleus sampling.
        max_tokens: Token limit of one answer, as most servers call it.
        max_completion_tokens: The same as OpenAI calls it, thinking included.
        reasoning_effort: How much a model thinks that can.
        verbosity: How much it says.
        frequency_penalty: Against repeating what was said often.
        presence_penalty: Against repeating what was said at all.
        seed: For answers that can be repeated, as far as the server can.
        stop: Texts at which an answer ends.
        store: Whether the provider keeps the completion.
        metadata: Up to 16 strings the provider keeps with it.
        user: Your name of the end user.
        service_tier: auto, default, flex, priority …
        parallel_tool_calls: Whether the model may call several tools at once; sent with tools only.
        extra_body: Merged into the request body as it is, for what only this server knows.
    """

    provider: str = "openai.chat"
    _names = (
        *("structured_output", "temperature", "top_p", "max_tokens", "max_completion_tokens", "reasoning_effort"),
        *("verbosity", "frequency_penalty", "presence_penalty", "seed", "stop", "store", "metadata", "user"),
        *("service_tier", "parallel_tool_calls", "extra_body"),
    )

    def __init__(
        self,
        id: str = "gpt-5-mini",
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        timeout: float = 600.0,
        structured_output: StructuredOutput = "json_schema",
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        max_completion_tokens: int | None = None,
        reasoning_effort: str | None = None,
        verbosity: str | None = None,
        frequency_penalty: float | None = None,
        presence_penalty: float | None = None,
        seed: int | None = None,
        stop: str | list[str] | None = None,
        store: bool | None = None,
        metadata: Mapping[str, str] | None = None,
        user: str | None = None,
        service_tier: str | None = None,
        parallel_tool_calls: bool | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        self._declare(locals())
        if structured_output not in (known := get_args(StructuredOutput)):
            raise UsageError(f"OpenAIChat(structured_output={structured_output!r}): one of {', '.join(known)}")

    async def call(self, request: ModelRequest) -> ModelResponse:
        """See `Model.call`."""
        endpoint, stream = await endpoint_of(self._account), FirstPiece(request.watch)
        stream.wants_text = request.watch.wants_text
        try:
            with anyio.fail_after(self.timeout):
                raw, answer = await self._answer(endpoint, self.body(request), stream)
        except TimeoutError:
            raise uncertain(too_late(endpoint, self.timeout)) from None
        with self._pricing():
            response = replace(self._priced(answer_from(answer)), rate_limits=rate_limits(raw.headers))
        if is_stream(raw):
            return timed(response, stream.after)
        _tell(request.watch, response)
        return response

    def body(self, request: ModelRequest) -> dict[str, Any]:
        """The arguments of ``chat.completions.create`` for a request."""
        options = dict(self._options)
        form: StructuredOutput = options.pop("structured_output")
        if form == "json_schema" and request.output is not None and request.output.json_mode:
            form = "json_object"
        if not request.tools:
            options.pop("parallel_tool_calls", None)
        body = {
            "model": self.id,
            "messages": chat_messages(request, None if form == "json_schema" else request.output),
            **tool_arguments(request, described, chosen),
        }
        if request.output is not None:
            body |= response_format(request.output, form)
        return body | options

    async def _answer(self, endpoint: Endpoint, body: dict[str, Any], watch: Watch) -> tuple[Any, Any]:
        if not watch.wants_text or (self.id, _STREAMS) in endpoint.lacks:
            return await self._ask(endpoint, body, watch)
        try:
            return await self._ask(endpoint, {**body, "stream": True, "stream_options": {"include_usage": True}}, watch)
        except ModelRejected as error:
            if not names(error, "stream"):
                raise
        answer = await self._ask(endpoint, body, watch)  # what is not accepted costs nothing
        endpoint.note_lack(self.id, _STREAMS)
        return answer

    async def _ask(self, endpoint: Endpoint, body: dict[str, Any], watch: Watch) -> tuple[Any, Any]:
        """The reply with its headers, and the `ChatCompletion` in it, or whatever else was sent."""
        with in_our_words(endpoint):
            raw = await endpoint.client.chat.completions.with_raw_response.create(**body, timeout=self.timeout)
            if not is_stream(raw):
                return raw, completion_of(await whole(raw))
            async with aclosing(events(raw)) as chunks:
                return raw, await assembled(chunks, watch, endpoint.base_url)


def _tell(watch: Watch, response: ModelResponse) -> None:
    """Tells of an answer that came whole."""
    if response.text:
        watch.text(response.text)
    for call in response.calls:
        watch.call(call.call_id, call.name)
