"""Puts a streamed completion together again, as it would have come whole; its watch hears of each piece."""

from collections.abc import AsyncIterator
from typing import Any

from pgrun.errors import ModelUnavailable
from pgrun.models._openai_failures import uncertain
from pgrun.models.base import Watch

_THOUGHTS = ("reasoning_content", "reasoning")  # what servers call them that send them apart from the answer


async def assembled(chunks: AsyncIterator[dict[str, Any]], watch: Watch, where: str) -> Any:
    """The `ChatCompletion` that a stream of chunks makes.

    Raises:
        ModelUnavailable: It ends without an end: `where` has cut it off.
    """
    parts = _Parts(watch)
    async for chunk in chunks:
        parts.add(chunk)
    if parts.reason is None:
        raise uncertain(ModelUnavailable(f"{where} cut the answer off", code="cut"))
    return completion_of(parts.completion())


def completion_of(data: Any) -> Any:
    """JSON data as the SDK hands it out, made of whatever came, without validation; what is no object stays as it is."""
    from openai.types.chat import ChatCompletion

    return ChatCompletion.construct(**data) if isinstance(data, dict) else data


class _Parts:
    """What has come so far."""

    def __init__(self, watch: Watch) -> None:
        self.reason: str | None = None
        self._watch = watch
        self._facts: dict[str, Any] = {}  # id, model, usage: each as it came last
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._at: dict[Any, dict[str, Any]] = {}  # the call that each index stands for now

    def add(self, chunk: dict[str, Any]) -> None:
        self._facts |= {name: chunk[name] for name in ("id", "model", "usage") if chunk.get(name)}
        for choice in chunk.get("choices") or ():
            self.reason = choice.get("finish_reason") or self.reason
            delta = choice.get("delta") or {}
            self._say(delta)
            for call in delta.get("tool_calls") or ():
                self._call(call)

    def completion(self) -> dict[str, Any]:
        """As it would have come whole."""
        message = {
            "role": "assistant",
            "content": "".join(self._text) or None,
            "refusal": "".join(self._refusal) or None,
            "tool_calls": self._calls or None,
        }
        return {**self._facts, "choices": [{"index": 0, "finish_reason": self.reason, "message": message}]}

    def _say(self, delta: dict[str, Any]) -> None:
        if text := delta.get("content"):
            self._text.append(text)
            self._watch.text(text)
        if refusal := delta.get("refusal"):
            self._refusal.append(refusal)
        for name in _THOUGHTS:
            if isinstance(thought := delta.get(name), str) and thought:
                self._watch.thought(thought)
                break

    def _call(self, piece: dict[str, Any]) -> None:
        """A piece of a call. One with another id than the one before at its index begins a call: some servers never count."""
        index, call_id, function = piece.get("index"), piece.get("id"), piece.get("function") or {}
        call = self._at.get(index)
        if call is None or (call_id and call["id"] and call_id != call["id"]):
            call = self._at[index] = {"id": None, "type": "function", "function": {"name": None, "arguments": ""}}
            self._calls.append(call)
        made = call["function"]
        call["id"] = call_id or call["id"]
        if (name := function.get("name")) and made["name"] is None:
            made["name"] = name
            self._watch.call(call["id"] or "", name)
        arguments = function.get("arguments")
        made["arguments"] = arguments if isinstance(arguments, dict) else made["arguments"] + (arguments or "")
