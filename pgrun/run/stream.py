"""What an attempt tells while it goes on: pieces of the answer, calls of tools, usage. Who listens is not its concern."""

from pgrun.models.base import ModelResponse, Watch
from pgrun.run._storable import storable_text
from pgrun.run.base import ToolExecution


class Stream(Watch):
    """The stream of one attempt; this one tells nobody. It watches the calls of the model and passes on what it hears."""

    def __init__(self) -> None:
        self._has_text = False

    def tell(self, kind: str, **data: object) -> None:
        """Takes the next event, see `RunEvent`, and returns at once; the data is not changed any more."""

    def text(self, delta: str) -> None:
        """The next piece of the answer."""
        if delta:
            self._has_text = True
            self.tell("text", text=storable_text(delta))

    def thought(self, delta: str) -> None:
        """The next piece of what the model tells of its thoughts."""
        if delta:
            self.tell("thought", text=storable_text(delta))

    def call(self, call_id: str, name: str) -> None:
        """The model begins to write down a call."""
        self.tell("tool_call_announced", call_id=storable_text(call_id), name=storable_text(name))

    def asked(self) -> None:
        """The model is asked."""
        self._has_text = False

    def answered(self, model: str, response: ModelResponse, duration: float) -> None:
        """The model has answered, perhaps without having told anything before; `model` is the provider's name of it."""
        if not self._has_text:
            self.text(response.text)
        usage = response.usage.model_dump(exclude_defaults=True)
        self.tell("model_call_completed", model=model, usage=usage, duration=duration)

    def calls_tool(self, execution: ToolExecution) -> None:
        """A tool is called."""
        self.tell("tool_call_started", call_id=execution.call_id, name=execution.name, arguments=execution.arguments)

    def called_tool(self, execution: ToolExecution) -> None:
        """A tool has returned or raised."""
        self.tell("tool_call_completed", **execution.model_dump(exclude={"arguments"}, exclude_none=True))
