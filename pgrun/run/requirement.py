"""What a paused run waits for: calls that a person has to decide on, and what they decided."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field, PrivateAttr

from pgrun._ids import new_run_id
from pgrun.errors import UsageError

RequirementKind = Literal["confirmation", "user_input", "external", "repeat"]


class InputField(BaseModel):
    """A parameter of a tool that a person fills in, and of which the model is not told."""

    name: str
    description: str = ""
    type: dict[str, Any] = Field(default_factory=dict)
    """Its JSON Schema."""
    required: bool = True


class RunRequirement(BaseModel):
    """A call that waits for a person, or has waited for one.

    Decide with `confirm`, `reject`, `provide_user_input` or `set_external_execution_result`, and hand it to
    ``agent.acontinue_run``; until then nobody else knows. The members are what `jobs.requirements` has.
    """

    kind: RequirementKind
    """`confirmation`: may it be called? `user_input`: with which values? `external`: what did somebody else's execution of it
    return? `repeat`: it has begun and nobody knows how it ended: is it to be called again?"""
    step: int
    """Of the call, in the journal of the run."""
    call_id: str
    """The provider's id of the call."""
    name: str
    """Of the tool."""
    arguments: dict[str, Any] | str
    """As the model gave them."""
    fields: list[InputField] = Field(default_factory=list)
    """What a person has to give, for `user_input`."""
    times: int = 0
    """How often it has begun, for `repeat`."""
    problem: str | None = None
    """Why it waits once more: what was wrong with the values that were given before."""

    approved: bool | None = None
    """The decision; None while there is none."""
    note: str | None = None
    """What the person said about it; of a rejection the model is told."""
    result: str | None = None
    """What the call returned where it was executed, for `external` and `repeat`."""
    input: dict[str, Any] | None = None
    """The values for `fields`."""
    decision_id: str | None = None
    """Of the decision, which counts once however often it is sent."""
    decided_by: str | None = None
    """Who decided. Where nobody says so, the role by which the decision came into the database; then, as this object was read."""
    decided_at: datetime | None = None
    """When the decision was stored, as this object was read."""

    _is_stored: bool = PrivateAttr(default=False)

    def confirm(self, note: str | None = None, *, by: str | None = None) -> None:
        """Lets it be called; for `repeat`, again.

        Args:
            note: What is said about it.
            by: Who decides; kept with the decision.

        Raises:
            UsageError: It needs more than a yes.
        """
        if self.kind == "external":
            raise self._wrong("give what it returned, with set_external_execution_result(text)")
        if missing := [field.name for field in self.fields if field.required]:
            raise self._wrong(f"it needs {', '.join(missing)}; give them with provide_user_input({{…}})")
        self._decide(by, approved=True, note=note)

    def reject(self, note: str | None = None, *, by: str | None = None) -> None:
        """Keeps it from being called; the model is told so, with the note. For `repeat`: it stays unknown how it ended."""
        self._decide(by, approved=False, note=note)

    def provide_user_input(self, values: Mapping[str, Any], *, by: str | None = None) -> None:
        """Lets it be called with these values, by the names of `fields`; they are checked when it is called.

        Raises:
            UsageError: It takes none, a value is missing, or a name is none of its fields.
        """
        if self.kind != "user_input":
            raise self._wrong("it takes no input")
        names, needed = {each.name for each in self.fields}, {each.name for each in self.fields if each.required}
        if wrong := sorted(values.keys() - names) or sorted(needed - values.keys()):
            raise self._wrong(f"input has to have {', '.join(sorted(names))}; wrong or missing: {', '.join(wrong)}")
        self._decide(by, approved=True, input=dict(values))

    def set_external_execution_result(self, result: str, *, by: str | None = None) -> None:
        """Says what the call returned: of a tool that is executed elsewhere, or of a call whose end nobody has recorded.

        Raises:
            UsageError: It waits for something else.
        """
        if self.kind not in ("external", "repeat"):
            raise self._wrong("it is called by a worker, so nobody else has its result")
        self._decide(by, approved=True, result=result)

    @property
    def is_stored(self) -> bool:
        """Whether there is a decision that others know of too, so that it can be changed no more."""
        return self._is_stored

    @property
    def is_open(self) -> bool:
        """Whether there is no decision yet."""
        return self.approved is None

    @property
    def needs_confirmation(self) -> bool:
        """Whether it is open and waits for a yes or no."""
        return self.is_open and self.kind in ("confirmation", "repeat")

    @property
    def needs_user_input(self) -> bool:
        """Whether it is open and waits for values."""
        return self.is_open and self.kind == "user_input"

    @property
    def needs_external_execution(self) -> bool:
        """Whether it is open and waits for the result of an execution elsewhere."""
        return self.is_open and self.kind == "external"

    def decision(self) -> dict[str, Any]:
        """The decision, as the parameters of `pgrun.approve`; however often it is sent, it is one and the same."""
        return self.model_dump(include={"call_id", "approved", "note", "result", "input", "decision_id", "decided_by"})

    def model_post_init(self, context: Any, /) -> None:
        """What was read from the database need not be written to it."""
        self._is_stored = self.decided_at is not None

    def to_json(self) -> dict[str, Any]:
        """JSON data to store in `jobs.requirements`; what is not known is left out."""
        return self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)

    def _decide(self, by: str | None, *, approved: bool, **more: Any) -> None:
        if self._is_stored:
            raise self._wrong(f"it was {'approved' if self.approved else 'rejected'} already")
        nothing = {"note": None, "result": None, "input": None}
        decision = {"approved": approved, "decided_by": by, "decision_id": new_run_id()}
        for name, value in (nothing | more | decision).items():
            setattr(self, name, value)

    def _wrong(self, reason: str) -> UsageError:
        return UsageError(f"{self.kind} of {self.name}, call {self.call_id}: {reason}")


def not_stored(requirements: Iterable[RunRequirement], *, waiting: Iterable[RunRequirement]) -> list[RunRequirement]:
    """Those that were decided on and whose decision nobody else knows yet.

    Args:
        requirements: Some with decisions.
        waiting: What the run waits for now.

    Raises:
        UsageError: It waits, and nothing was decided.
    """
    new = [each for each in requirements if not each.is_open and not each.is_stored]
    if not new and (open_ones := [f"{each.name} ({each.kind}, call {each.call_id})" for each in waiting]):
        raise UsageError(
            f"nothing was decided; the run waits for {', '.join(open_ones)}: confirm(), reject(), provide_user_input() or "
            "set_external_execution_result() on its active_requirements first"
        )
    return new


def mark_stored(requirements: Iterable[RunRequirement]) -> None:
    """Their decisions are not to be sent again."""
    for each in requirements:
        each._is_stored = True


class RunPaused(Exception):
    """Ends an attempt whose run has to wait for a person.

    Attributes:
        requirements: All that the run has waited for until now; those that are open are what it waits for.
    """

    def __init__(self, requirements: Sequence[RunRequirement]) -> None:
        super().__init__(f"waits for a person: {', '.join(each.name for each in requirements if each.is_open)}")
        self.requirements = tuple(requirements)
