"""Every exception that pgrun raises, in one tree.

::

    PgrunError
    ├── UsageError                    the call itself is wrong: fix the code or the input
    ├── SessionBusy                   the session has an open run, and the new one was not to wait for it
    ├── DatabaseError
    │   ├── DatabaseUnavailable       no connection, or it broke and did not come back in time
    │   └── SchemaMismatch            the tables are missing, older or newer than this pgrun
    ├── RunError                      about one run
    │   ├── RunNotFound
    │   ├── RunEnded                  it has ended, and the call was meant for an open one
    │   ├── RunFailed                 it ended in `error`
    │   ├── RunCancelled              it ended in `cancelled`
    │   └── WaitTimeout               it did not end in time (also a TimeoutError)
    └── AttemptError                  how one attempt ended; the worker decides what follows
        ├── AttemptTimeout            retried: the attempt took longer than its `timeout`
        ├── ModelUnavailable          retried: 408, 409, 429, 5xx, connection lost, time-out
        ├── QuotaExceeded             postponed without using an attempt: no credit left, or the key is not accepted
        ├── AnswerQueued              looked for again later without using an attempt: the provider has not begun with it
        ├── ModelRejected             permanent: the provider does not accept the request
        ├── ModelCallLost             permanent: what became of a call cannot be known, and it may not be made twice
        ├── ModelRefused              permanent: the model declined to answer
        ├── ContentFiltered           permanent: the provider's filter cut the answer
        ├── OutputTruncated           permanent: the answer hit the token limit
        ├── OutputInvalid             permanent: the answer does not match its type, also after repair
        ├── ToolFailed                permanent: a tool said that the run cannot go on
        ├── HookFailed                permanent: a hook raised
        ├── TurnLimitExceeded         permanent: the model came to no end
        ├── BudgetExceeded
        └── LeaseLost                 another worker has taken over; nothing is written

Ids are attributes, the message says what to do, and the cause is chained.
"""

from typing import Any, Literal


class PgrunError(Exception):
    """Base of everything pgrun raises on purpose."""


class UsageError(PgrunError, ValueError):
    """The call, its arguments or its input cannot be accepted; nothing was stored."""


class SessionBusy(PgrunError):
    """A run with ``multitask="reject"`` met an open one in its session; nothing was stored, and trying again later is right.

    Attributes:
        session_id: The session.
        run_id: The run that is open in it.
    """

    def __init__(self, message: str, *, session_id: str, run_id: str) -> None:
        super().__init__(message)
        self.session_id = session_id
        self.run_id = run_id


class DatabaseError(PgrunError):
    """The database refused or failed; the message carries its own words."""


class DatabaseUnavailable(DatabaseError):
    """The database could not be reached, or a lost connection did not come back in time."""


class SchemaMismatch(DatabaseError):
    """The schema is missing, older or newer than what this pgrun works with."""


class RunError(PgrunError):
    """Something about one run.

    Attributes:
        run_id: The run in question.
        run: Its last known state as a `RunOutput`, where there is one.
    """

    def __init__(self, message: str, *, run_id: str, run: Any = None) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.run = run


class RunNotFound(RunError):
    """No run with this id exists: it was never committed, or it has been deleted."""


class RunEnded(RunError):
    """The run has ended already; nothing was changed."""


class RunFailed(RunError):
    """The run ended in `error`.

    Attributes:
        error_type: Name of the error that ended it, for example ``"OutputInvalid"``.
        details: What was recorded with it: `message`, and depending on the type `raw`, `code`, `status_code`.
    """

    def __init__(
        self, message: str, *, run_id: str, run: Any = None, error_type: str = "", details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message, run_id=run_id, run=run)
        self.error_type = error_type
        self.details = details or {}


class RunCancelled(RunError):
    """The run was cancelled before it could complete."""


class WaitTimeout(RunError, TimeoutError):
    """The run did not end within the time the caller was ready to wait; it goes on all the same."""


class AttemptError(PgrunError):
    """One attempt ended without a valid answer.

    Attributes:
        details: JSON-ready facts stored in the run's `error` column beside type and message.
        metrics: Usage that was paid before the attempt ended, or None.
        answer: What a failed call of the model leaves at the provider: `none` (nothing, or an end that was counted), `unknown`
            (it may have been answered and paid for), or `pending` (it goes on there, and can be had by its id).
    """

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = {key: value for key, value in details.items() if value is not None}
        self.metrics: Any = None
        self.answer: Literal["none", "unknown", "pending"] = "none"


class AttemptTimeout(AttemptError):
    """The attempt took longer than the `timeout` of its run or task, and was stopped."""


class ModelUnavailable(AttemptError):
    """The provider could not answer now; trying again later is right.

    Attributes:
        retry_after: Seconds the provider asked us to wait, or None.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, **details: Any) -> None:
        super().__init__(message, retry_after=retry_after, **details)
        self.retry_after = retry_after


class QuotaExceeded(AttemptError):
    """The account has no credit left or its key is not accepted: no attempt of any run can succeed until a person acts."""


class AnswerQueued(AttemptError):
    """The provider has taken the call, and not begun with it for so long that the run gives its slot to others meanwhile."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message, **details)
        self.answer = "pending"


class ModelRejected(AttemptError):
    """The provider does not accept this request (400, 404, 422 …); repeating it cannot help."""


class ModelCallLost(AttemptError):
    """What became of a call of the model cannot be known, and `RetryPolicy.ambiguous` says that it must not be made twice."""


class ModelRefused(AttemptError):
    """The model declined to answer; `details["refusal"]` has its words."""


class ContentFiltered(AttemptError):
    """The provider's content filter cut the answer; `details["raw"]` has what came before."""


class OutputTruncated(AttemptError):
    """The answer ended at the token limit; `details["raw"]` has what came before."""


class OutputInvalid(AttemptError):
    """The answer does not match the output schema; `details["raw"]` has the text, `details["errors"]` the reasons."""


class ToolFailed(AttemptError):
    """Raised by a tool to end the run, which cannot go on; any other exception of a tool is shown to the model instead."""


class HookFailed(AttemptError):
    """A pre-hook, a post-hook or callable instructions raised; the message has the exception."""


class TurnLimitExceeded(AttemptError):
    """The run used all turns it was given without coming to an end."""


class BudgetExceeded(AttemptError):
    """The run would cost more than it is allowed to."""


class LeaseLost(AttemptError):
    """The worker lost its right to the run; whatever it still holds must not be written."""
