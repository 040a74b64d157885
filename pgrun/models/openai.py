"""`OpenAIResponses`: a model behind the Responses API, OpenAI's own or a compatible one. Programs find `OpenAIChat` here, too.

The SDK only carries the request: its retries are off, because the queue retries; its parsing is not used, because it throws
a paid answer away when the answer does not fit.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from pgrun.models._chat_request import FINAL
from pgrun.models._openai_answer import response_from
from pgrun.models._openai_client import create_response
from pgrun.models._openai_model import OpenAIModel
from pgrun.models._openai_request import chosen, described, input_items
from pgrun.models._openai_tools import tool_arguments
from pgrun.models.base import Message, ModelRequest, ModelResponse
from pgrun.models.openai_chat import OpenAIChat as OpenAIChat

# These models think before they answer and want their responses stored; for others `store` is left to the account.
_STORES = re.compile(r"(o3|o4-mini|gpt-5|gpt-6)")
_THOUGHTS = "reasoning.encrypted_content"


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
    """

    provider: str = "openai.responses"
    _names = (
        *("temperature", "top_p", "max_output_tokens", "reasoning", "reasoning_effort", "reasoning_summary"),
        *("verbosity", "store", "metadata", "user", "truncation", "service_tier", "parallel_tool_calls", "include"),
        "extra_body",
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
    ) -> None:
        self._declare(locals())

    async def call(self, request: ModelRequest) -> ModelResponse:
        """See `Model.call`."""
        answer = await create_response(self._account, self.body(request), timeout=self.timeout)
        return self._priced(response_from(answer))

    def body(self, request: ModelRequest) -> dict[str, Any]:
        """The arguments of ``responses.create`` for a request."""
        options = dict(self._options)
        body: dict[str, Any] = {
            "model": self.id,
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
