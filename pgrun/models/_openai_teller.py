"""Tells a watch of an answer of the Responses API while it is written, and in the end of whatever did not come piece by piece."""

from typing import Any

from pgrun.models._first_piece import FirstPiece
from pgrun.models.base import ModelResponse, Watch

_THOUGHTS = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")


class Teller:
    """What one call tells its watch; each piece once."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._stream = FirstPiece(watch)
        self._said = 0  # characters
        self._called = set[str]()
        self._asides = set[Any]()  # ids of messages that are not the answer, but commentary on the way

    @property
    def time_to_first_piece(self) -> float | None:
        """Seconds from the making of this object to the first event that told something; None if none did."""
        return self._stream.after

    def tell(self, event: dict[str, Any]) -> None:
        """One event of the stream."""
        kind, delta = event.get("type"), event.get("delta")
        if kind == "response.output_item.added" and isinstance(item := event.get("item"), dict):
            self._tell_item(item)
        elif not isinstance(delta, str) or not delta:
            return
        elif kind in _THOUGHTS or (kind == "response.output_text.delta" and event.get("item_id") in self._asides):
            self._stream.thought(delta)
        elif kind == "response.output_text.delta":
            self._said += len(delta)
            self._stream.text(delta)

    def tell_rest(self, response: ModelResponse) -> None:
        """What the answer has that no event told of."""
        if rest := response.text[self._said :]:
            self._watch.text(rest)
        for call in response.calls:
            self._tell_call(self._watch, call.call_id, call.name)

    def _tell_item(self, item: dict[str, Any]) -> None:
        if item.get("type") == "function_call":
            self._tell_call(self._stream, item.get("call_id"), item.get("name"))
        elif item.get("phase") not in (None, "final_answer"):
            self._asides.add(item.get("id"))

    def _tell_call(self, watch: Watch, call_id: object, name: object) -> None:
        if isinstance(call_id, str) and isinstance(name, str) and call_id not in self._called:
            self._called.add(call_id)
            watch.call(call_id, name)
