"""`RunContext`: what tools, hooks and instructions may know about their run, and the state of its session, to be changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pgrun.run.state import State, View, merge, view_of


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """The run that calls a tool or a hook.

    A parameter of a tool that is annotated with it is filled in by pgrun, and no model is told of it.

    Attributes:
        run_id: Its id.
        session_id: The conversation it belongs to.
        agent_name: The agent that it executes.
        attempt: Counted from 1.
        metadata: As it was submitted with: the place for what the tools have to know and the model must not choose.
        user_id: Whom it is for, as it was submitted with.
        dependencies: The agent's, and over them those that it was submitted with.
        idempotency_key: Of this call, for services that execute a request with a known key only once: the same in every
            attempt of the run for the n-th call of this tool with these arguments, and when a call that failed is made again. At
            most 180 characters.
    """

    run_id: str
    session_id: str | None
    agent_name: str
    attempt: int
    metadata: Mapping[str, Any] = field(default_factory=dict)
    user_id: str | None = None
    dependencies: Mapping[str, Any] = field(default_factory=dict)
    idempotency_key: str = ""
    view: View = field(default_factory=lambda: view_of({}), repr=False, compare=False)

    @property
    def session_state(self) -> State:
        """The state of the session: JSON data, to be read and changed.

        What a call has changed when it returns is merged into the state as it then is, object by object, together with the
        record of the call; what was appended to a list is appended. A call that raises changes nothing. Of runs that
        execute at the same time none loses what another has changed, unless both set the same thing.
        """
        return self.view.state

    def update_state(self, values: Mapping[str, Any] = {}, /, **more: Any) -> None:
        """Sets these values in `session_state`, object by object: what is not mentioned stays."""
        merge(self.view.state, {**values, **more})

    def add_to_state(self, key: str, number: float = 1) -> None:
        """Adds to a number in `session_state`, 0 if there is none; unlike an assignment it counts beside others' additions."""
        self.view.add(key, number)


@dataclass(kw_only=True)
class RunInput:
    """What a run was asked, in the hands of a pre-hook, which may put something else into `input_content`."""

    input_content: Any
