"""The face of the package: a model server that a test starts, scripts and questions from its own thread.

The server lives in an event loop in a thread of its own, so that neither a blocking nor an asynchronous test can keep it
from answering.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pgrun.errors import UsageError
from pgrun.testing.answers import Disconnect, HttpError, Scripted, Usage
from pgrun.testing.background import Background
from pgrun.testing.bill import Bill
from pgrun.testing.desk import Desk, StreamMode
from pgrun.testing.journal import Call, Journal, Lookup, Outcome
from pgrun.testing.limits import Limits, Meter
from pgrun.testing.patience import Patience
from pgrun.testing.responses import BackgroundMode, ResponsesApi
from pgrun.testing.script import Match, Script
from pgrun.testing.store import Store

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal
    from starlette.applications import Starlette

_HOST = "127.0.0.1"


class ModelServer:
    """An OpenAI-compatible server on the loopback; use it as a context manager, or with `start` and `stop`.

    A stopped server can be started again: it keeps its port, script, journal and responses, as a provider that comes
    back, and background responses go on where they stopped.

    Args:
        port: Where to listen; 0 takes a free port.
        delay: Seconds before the first output of each answer that does not say otherwise; can be set at any time.
        interval: Seconds between two deltas of each answer that does not say otherwise; can be set at any time.
        background: "offered": as the provider does; "rejected": 400, as endpoints without background mode answer;
            "ignored": as those answer that take no notice of the parameter, in the foreground.
        streams: The same of streams, of either API; "ignored": the answer comes whole.
        replay_window: Seconds in which the stream of a background response can be picked up again.
        limits: How many requests and tokens each model gets; what is beyond is answered with 429 and a Retry-After.
            None: usual limits are told with each answer, and nothing is refused.
        counts_cancelled: Whether background responses that are cancelled say what they have used; paid they are in either case.
    """

    api_key = "test-key"
    """Any key is accepted; this one makes plain that it is none."""

    def __init__(
        self,
        *,
        port: int = 0,
        delay: float = 0.0,
        interval: float = 0.0,
        background: BackgroundMode = "offered",
        streams: StreamMode = "offered",
        replay_window: float = 300.0,
        limits: Limits | None = None,
        counts_cancelled: bool = False,
    ) -> None:
        self._port = port
        self._script = Script()
        self._journal = Journal()
        self._patience = Patience(delay, interval)
        self._bill = Bill()
        self._meter = Meter(limits)
        self._store = Store(replay_window, counts_cancelled=counts_cancelled)
        self._responses = ResponsesApi(self._store, background)
        self._streams: StreamMode = streams
        self._background = Background()
        self._application: Starlette | None = None
        self._portal: BlockingPortal | None = None
        self._running = ExitStack()

    def start(self) -> Self:
        """Listen and serve; nothing happens if the server runs already.

        Raises:
            UsageError: The extra ``pgrun[testing]`` is not installed.
            OSError: The port is taken.
        """
        if self._portal is None:
            with _told_of_the_extra():
                from pgrun.testing.application import application
                from pgrun.testing.loopback import listen, serve
            listener = listen(self._port)
            self._port = listener.getsockname()[1]
            if self._application is None:
                desk = Desk(self._script, self._journal, self._patience, self._bill, self._meter, self._streams)
                self._application = application(desk, self._responses, self._store, self._background)
            self._portal = self._open_portal()
            self._portal.start_task(self._background.serve)
            self._portal.start_task(serve, self._application, listener, self._journal.drop_open_calls)
        return self

    def stop(self) -> None:
        """Cut every connection and end the thread; nothing happens if the server does not run."""
        self._portal = None
        self._running.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<ModelServer {self.base_url if self._portal else 'stopped'}, {len(self.calls)} calls>"

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as `base_url`; known once the server has been started."""
        if not self._port:
            raise UsageError("the model server has no address yet: start it first")
        return f"http://{_HOST}:{self._port}/v1"

    @property
    def environ(self) -> dict[str, str]:
        """Environment variables that lead an OpenAI client in another process here."""
        return {"OPENAI_BASE_URL": self.base_url, "OPENAI_API_KEY": self.api_key}

    @property
    def delay(self) -> float:
        """Seconds before each answer that does not say otherwise."""
        return self._patience.delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        self._patience.delay = seconds

    @property
    def interval(self) -> float:
        """Seconds between two deltas of each answer that does not say otherwise."""
        return self._patience.interval

    @interval.setter
    def interval(self, seconds: float) -> None:
        self._patience.interval = seconds

    def script(self, *answers: Scripted, match: Match = None) -> None:
        """Play these answers in order, one for each matching call; after the last one calls are answered as before.

        Args:
            *answers: Texts, JSON values, pydantic models, answers such as `rate_limited()`, or functions of the body.
            match: Only calls with this text somewhere in their input, or whose body this function says yes to.
        """
        self._script.add(*answers, match=match)

    def always(self, answer: Scripted, match: Match = None) -> None:
        """Answer every matching call this way when nothing scripted is left for it; the newest such rule wins."""
        self._script.always(answer, match)

    def script_lookups(self, *faults: HttpError | Disconnect) -> None:
        """Let the next requests that ask no model fail, one with each fault; after the last one they succeed again.

        Args:
            *faults: Error answers such as `server_error()` or `disconnect()`.
        """
        self._script.add_lookup_faults(*faults)

    def release(self) -> None:
        """Let every call that hangs now go on; it gets an answer made up for it."""
        self._need_portal().call(self._patience.release)

    @property
    def calls(self) -> list[Call]:
        """What has been asked so far, in order of arrival; a snapshot, to be read again after something happened."""
        return self._journal.calls

    @property
    def lookups(self) -> list[Lookup]:
        """Which requests have asked no model so far, in order: responses retrieved and cancelled, files, batches."""
        return self._journal.lookups

    @property
    def responses(self) -> dict[str, dict[str, Any]]:
        """Every stored Response object by its id, as it is now."""
        return self._store.bodies

    def forget(self, response_id: str) -> None:
        """Delete a stored response, as the provider does when it has kept it for long enough; what works on it stops.

        Raises:
            UsageError: There is none.
        """
        if response_id not in self._store.bodies:
            raise UsageError(f"no response {response_id} is stored here")
        self._need_portal().call(self._store.delete, response_id)

    @property
    def paid(self) -> int:
        """How many calls have been paid for so far: those that produced output tokens, each once.

        A foreground call whose connection breaks and a background one that is cancelled are paid for as far as they
        came, one that fails or hangs is not.
        """
        return len(self._bill.by_response)

    @property
    def paid_tokens(self) -> Usage:
        """All tokens paid for so far."""
        return self._bill.total

    @property
    def paid_by_response(self) -> Mapping[str, Usage]:
        """The tokens paid for so far by response id."""
        return self._bill.by_response

    def wait_for_calls(self, count: int, timeout: float = 5.0, *, outcome: Outcome | None = None) -> list[Call]:
        """Block until `count` calls have been received, and return those there are.

        Args:
            count: How many calls since the server was created.
            timeout: Seconds.
            outcome: Count only calls that have come to this, for example ``"aborted"``.

        Raises:
            TimeoutError: They did not come in time.
        """
        return self._need_portal().call(self._journal.wait, count, outcome, timeout)

    async def await_for_calls(self, count: int, timeout: float = 5.0, *, outcome: Outcome | None = None) -> list[Call]:
        """The same as `wait_for_calls`, for a test in an event loop of its own."""
        return await self._need_portal().call_async(self._journal.wait, count, outcome, timeout)

    def wait_for_lookups(self, count: int, timeout: float = 5.0) -> list[Lookup]:
        """Block until `count` requests that ask no model have been answered, and return those there are.

        Raises:
            TimeoutError: They did not come in `timeout` seconds.
        """
        return self._need_portal().call(self._journal.wait_for_lookups, count, timeout)

    async def await_for_lookups(self, count: int, timeout: float = 5.0) -> list[Lookup]:
        """The same as `wait_for_lookups`, for a test in an event loop of its own."""
        return await self._need_portal().call_async(self._journal.wait_for_lookups, count, timeout)

    def _need_portal(self) -> "BlockingPortal":
        if self._portal is None:
            raise UsageError("the model server is not running")
        return self._portal

    def _open_portal(self) -> "BlockingPortal":
        from anyio.from_thread import start_blocking_portal

        portal = self._running.enter_context(start_blocking_portal("asyncio", name="pgrun-model-server"))
        # Leaving the portal waits for its tasks; this ends them first: the one that serves and all that still wait.
        self._running.callback(portal.call, portal.stop, True)
        return portal


@contextmanager
def _told_of_the_extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "h11"):
            raise
        raise UsageError('the model server needs starlette and uvicorn: pip install "pgrun[testing]"') from error
