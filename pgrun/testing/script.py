"""Which answer a call gets: `desk` asks here once for each accepted call, in the order they arrive.

Scripted answers come first, oldest script first; then standing rules, the newest first, so that a test can override what
its fixture set up; then an answer made up for the request.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from pgrun.errors import UsageError
from pgrun.testing.answers import Answer, Disconnect, Generated, HttpError, Scripted, as_answer
from pgrun.testing.request import ModelRequest

Match: TypeAlias = str | Callable[[dict[str, Any]], bool] | None
"""Which calls a rule is for: those with this text in their input, those whose body satisfies this function, or all."""


@dataclass(frozen=True)
class _Rule:
    match: Match
    answers: deque[Scripted]

    def fits(self, request: ModelRequest) -> bool:
        if self.match is None:
            return True
        if isinstance(self.match, str):
            return any(self.match in text for text in request.texts)
        return self.match(request.body)


class Script:
    """The answers a test has lined up; filled from the test's thread, played from the server's."""

    def __init__(self) -> None:
        self._played_once: list[_Rule] = []
        self._standing: list[_Rule] = []
        self._lookup_faults: deque[HttpError | Disconnect] = deque()
        # Reentrant, because a match function may itself line up more answers.
        self._lock = threading.RLock()

    def add(self, *answers: Scripted, match: Match = None) -> None:
        """Line up answers, one for each matching call."""
        with self._lock:
            self._played_once.append(_Rule(match, deque(map(_checked, answers))))

    def always(self, answer: Scripted, match: Match = None) -> None:
        """Answer every matching call this way once nothing scripted is left for it."""
        with self._lock:
            self._standing.insert(0, _Rule(match, deque([_checked(answer)])))

    def add_lookup_faults(self, *faults: HttpError | Disconnect) -> None:
        """Line up faults, one for each request that asks no model."""
        for fault in faults:
            if not isinstance(fault, HttpError | Disconnect):
                raise UsageError(f"a lookup can fail with an error status or lose its connection, not {fault!r}")
        self._lookup_faults.extend(faults)

    def lookup_fault(self) -> HttpError | Disconnect | None:
        """Take the fault of a request that asks no model, None if it gets what it asks for."""
        with self._lock:
            return self._lookup_faults.popleft() if self._lookup_faults else None

    def answer(self, request: ModelRequest) -> Answer:
        """Take the answer to this call; it is gone from the script even if the client never reads it."""
        chosen = self._take(request)
        return as_answer(chosen(request.body) if _is_function(chosen) else chosen)  # type: ignore[arg-type, operator]

    def _take(self, request: ModelRequest) -> Scripted:
        with self._lock:
            for rule in self._played_once:
                if rule.answers and rule.fits(request):
                    return rule.answers.popleft()
            for rule in self._standing:
                if rule.fits(request):
                    return rule.answers[0]
        return Generated()


def _checked(answer: Scripted) -> Scripted:
    # What cannot be an answer is told where the test wrote it, not at the call that would get it.
    return answer if _is_function(answer) else as_answer(answer)  # type: ignore[arg-type]


def _is_function(answer: Scripted) -> bool:
    return callable(answer) and not isinstance(answer, type)
