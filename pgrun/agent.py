"""`Agent`: what users declare and call. Here a request becomes a run, and a row becomes a typed answer again.

A background run, and with a database also a foreground one, goes through the queue: it is a row before anything is paid,
and whichever worker claims it finds its whole definition there.
"""

from collections.abc import AsyncGenerator, Coroutine, Iterator
from functools import partial
from typing import Any, Generic, Literal, TypeVar, Unpack, overload

from pgrun._agent_asks import Asks
from pgrun._agent_decides import Decides
from pgrun._agent_looks import Looks
from pgrun._agent_options import AgentOptions
from pgrun._agent_talks import Talks
from pgrun._agents_here import register
from pgrun._sync import iterate_sync, run_sync
from pgrun.run.base import RunOutput
from pgrun.run.children import AgentTool
from pgrun.run.event import RunEvent
from pgrun.run.options import AgentRunOptions

T = TypeVar("T")
S = TypeVar("S")


class Agent(Asks, Looks, Decides, Talks, Generic[T]):
    """A named definition of how to answer: a model, what it is told, and the type of its answers.

    Args:
        output_schema: Type of the answers: Pydantic model, dataclass, TypedDict, list, union or scalar; or a JSON schema as a
            dict. None: plain text.
        **options: See `AgentOptions`.

    Raises:
        UsageError: An argument cannot be; for a type that the provider's strict mode cannot carry it names the field.
    """

    @overload
    def __init__(self: "Agent[str]", *, output_schema: None = None, **options: Unpack[AgentOptions]) -> None: ...
    @overload
    def __init__(self: "Agent[S]", *, output_schema: type[S], **options: Unpack[AgentOptions]) -> None: ...
    @overload
    def __init__(self: "Agent[Any]", *, output_schema: Any, **options: Unpack[AgentOptions]) -> None: ...
    def __init__(self, *, output_schema: Any = None, **options: Any) -> None:
        super().__init__(output_schema, options)
        register(self)

    @overload
    def arun(
        self,
        input: Any,
        *,
        stream: Literal[True],
        background: Literal[False] = False,
        output_schema: Any = None,
        **options: Unpack[AgentRunOptions],
    ) -> AsyncGenerator[RunEvent, None]: ...
    @overload
    def arun(
        self,
        input: Any,
        *,
        output_schema: None = None,
        background: bool = False,
        stream: Literal[False] = False,
        **options: Unpack[AgentRunOptions],
    ) -> Coroutine[Any, Any, RunOutput[T]]: ...
    @overload
    def arun(
        self,
        input: Any,
        *,
        output_schema: type[S],
        background: bool = False,
        stream: Literal[False] = False,
        **options: Unpack[AgentRunOptions],
    ) -> Coroutine[Any, Any, RunOutput[S]]: ...
    @overload
    def arun(
        self,
        input: Any,
        *,
        output_schema: Any,
        background: bool = False,
        stream: Literal[False] = False,
        **options: Unpack[AgentRunOptions],
    ) -> Coroutine[Any, Any, RunOutput[Any]]: ...
    @overload
    def arun(
        self,
        input: Any,
        *,
        output_schema: None = None,
        background: Literal[True],
        stream: bool,
        **options: Unpack[AgentRunOptions],
    ) -> Coroutine[Any, Any, RunOutput[T]]: ...
    @overload
    def arun(
        self,
        input: Any,
        *,
        output_schema: type[S],
        background: Literal[True],
        stream: bool,
        **options: Unpack[AgentRunOptions],
    ) -> Coroutine[Any, Any, RunOutput[S]]: ...
    def arun(
        self,
        input: Any,
        *,
        output_schema: Any = None,
        background: bool = False,
        stream: bool = False,
        **options: Unpack[AgentRunOptions],
    ) -> Any:
        """Asks the agent.

        Args:
            input: A text, a list of ``{"role", "content"}`` messages, or any data with a JSON form, which is shown as JSON.
            output_schema: Type of this answer, instead of the agent's.
            background: Return as soon as the run is stored, with status pending; ``await run.aresult()`` gives the answer.
            stream: In the foreground not to be awaited, but iterated: ``async for event in agent.arun("…", stream=True)``. In
                the background the model tells its answer piece by piece from the start, for whoever reads `RunOutput.aevents`.
            **options: See `AgentRunOptions`.

        Returns:
            In the foreground the completed run, or the paused one if it waits for a person (see `acontinue_run`), or with
            `stream` its events; else the pending one. Cancelling a foreground call, or leaving the iteration, cancels the run.

        Raises:
            UsageError: The input cannot be stored, or an option cannot be; nothing was submitted.
            SessionBusy: Its session has an open run, and `multitask` is `reject`; nothing was submitted.
            RunFailed: The foreground run ended in `error`; with `stream` after its last event.
            RunCancelled: Someone cancelled the foreground run; with `stream` after its last event.
            DatabaseError: The run could not be stored.
        """
        if stream and not background:
            return self._tell(input, output_schema, options)
        return self._ask(input, output_schema, options, background=background, streams=stream)

    @overload
    def run(
        self,
        input: Any,
        *,
        stream: Literal[True],
        background: Literal[False] = False,
        output_schema: Any = None,
        **options: Unpack[AgentRunOptions],
    ) -> Iterator[RunEvent]: ...
    @overload
    def run(
        self,
        input: Any,
        *,
        output_schema: None = None,
        background: bool = False,
        stream: Literal[False] = False,
        **options: Unpack[AgentRunOptions],
    ) -> RunOutput[T]: ...
    @overload
    def run(
        self,
        input: Any,
        *,
        output_schema: type[S],
        background: bool = False,
        stream: Literal[False] = False,
        **options: Unpack[AgentRunOptions],
    ) -> RunOutput[S]: ...
    @overload
    def run(
        self,
        input: Any,
        *,
        output_schema: Any,
        background: bool = False,
        stream: Literal[False] = False,
        **options: Unpack[AgentRunOptions],
    ) -> RunOutput[Any]: ...
    @overload
    def run(
        self,
        input: Any,
        *,
        output_schema: None = None,
        background: Literal[True],
        stream: bool,
        **options: Unpack[AgentRunOptions],
    ) -> RunOutput[T]: ...
    @overload
    def run(
        self,
        input: Any,
        *,
        output_schema: type[S],
        background: Literal[True],
        stream: bool,
        **options: Unpack[AgentRunOptions],
    ) -> RunOutput[S]: ...
    def run(
        self,
        input: Any,
        *,
        output_schema: Any = None,
        background: bool = False,
        stream: bool = False,
        **options: Unpack[AgentRunOptions],
    ) -> Any:
        """The same as `arun`, for code without an event loop."""
        ask: Any = partial(
            self.arun, input, output_schema=output_schema, background=background, stream=stream, **options
        )
        return iterate_sync(ask) if stream and not background else run_sync(ask)

    def as_tool(self, *, name: str | None = None, description: str | None = None) -> AgentTool:
        """This agent as a tool of another one: each call is a run of its own, with the caller's as its parent.

        Args:
            name: By which the model calls it. Default: the agent's, with ``_`` for what names of tools may not have.
            description: What the model is told. Default: the agent's description.
        """
        return AgentTool(self, name=name, description=description or self.definition.description)
