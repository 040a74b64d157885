"""How an agent's model finds what was said before by the provider's id of an answer, instead of being told it once more.

A provider that keeps answers keeps with each the whole conversation that led to it. So a run can go on from the last answer
of its session: what came before is named and not sent. What the provider does not know, because it is not its own or no
longer there, is told as it always was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from pgrun.errors import UsageError
from pgrun.models.base import KeepingModel, Message, Model


@dataclass(frozen=True)
class Previous:
    """What the conversation of a run goes on from.

    Attributes:
        response_id: The provider's id of the answer; None if there is none, or the provider has forgotten it.
        messages: What it stands for: the conversation up to and with that answer, without any system prompt.
    """

    response_id: str | None = None
    messages: tuple[Message, ...] = ()

    def told_instead(self, conversation: Sequence[Message]) -> tuple[Message, ...]:
        """A conversation that goes on from here, with all that was said before."""
        place = len([*takewhile(lambda message: message.role == "system", conversation)])
        return (*conversation[:place], *self.messages, *conversation[place:])


def check_keeps(model: Model) -> None:
    """Raises `UsageError` if nothing can go on from the answers of a model by their id."""
    if not isinstance(model, KeepingModel):
        raise UsageError(
            f"use_previous_response_id: the answers of {model!r} have no id from which a later run could go on; use "
            "OpenAIResponses, or leave it out: then the conversation is told anew"
        )
    if not model.keeps_answers:
        raise UsageError("use_previous_response_id: with store=False the provider keeps no answer to go on from")
