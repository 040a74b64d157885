"""Durable background runs for LLM agents, on the Postgres that a service already has.

What is listed here is public. It is imported when it is first used, so that ``import pgrun`` costs next to nothing.
"""

from collections.abc import Coroutine
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pgrun import _hosting

if TYPE_CHECKING:
    from pgrun.agent import Agent as Agent
    from pgrun.db.postgres import PostgresDb as PostgresDb
    from pgrun.db.schedules import Schedule as Schedule
    from pgrun.errors import AnswerQueued as AnswerQueued
    from pgrun.errors import AttemptError as AttemptError
    from pgrun.errors import AttemptTimeout as AttemptTimeout
    from pgrun.errors import BudgetExceeded as BudgetExceeded
    from pgrun.errors import ContentFiltered as ContentFiltered
    from pgrun.errors import DatabaseError as DatabaseError
    from pgrun.errors import DatabaseUnavailable as DatabaseUnavailable
    from pgrun.errors import DeadlineExceeded as DeadlineExceeded
    from pgrun.errors import HookFailed as HookFailed
    from pgrun.errors import LeaseLost as LeaseLost
    from pgrun.errors import ModelCallLost as ModelCallLost
    from pgrun.errors import ModelRefused as ModelRefused
    from pgrun.errors import ModelRejected as ModelRejected
    from pgrun.errors import ModelUnavailable as ModelUnavailable
    from pgrun.errors import OutputInvalid as OutputInvalid
    from pgrun.errors import OutputTruncated as OutputTruncated
    from pgrun.errors import PgrunError as PgrunError
    from pgrun.errors import QuotaExceeded as QuotaExceeded
    from pgrun.errors import RunCancelled as RunCancelled
    from pgrun.errors import RunEnded as RunEnded
    from pgrun.errors import RunError as RunError
    from pgrun.errors import RunExpired as RunExpired
    from pgrun.errors import RunFailed as RunFailed
    from pgrun.errors import RunNotFound as RunNotFound
    from pgrun.errors import SchemaMismatch as SchemaMismatch
    from pgrun.errors import SessionBusy as SessionBusy
    from pgrun.errors import ToolFailed as ToolFailed
    from pgrun.errors import TurnLimitExceeded as TurnLimitExceeded
    from pgrun.errors import UsageError as UsageError
    from pgrun.errors import WaitTimeout as WaitTimeout
    from pgrun.models.openai import OpenAIResponses as OpenAIResponses
    from pgrun.models.openai_chat import OpenAIChat as OpenAIChat
    from pgrun.retry import RetryPolicy as RetryPolicy
    from pgrun.run.base import Run as Run
    from pgrun.run.base import RunOutput as RunOutput
    from pgrun.run.base import RunStatus as RunStatus
    from pgrun.run.base import ToolExecution as ToolExecution
    from pgrun.run.context import RunContext as RunContext
    from pgrun.run.context import RunInput as RunInput
    from pgrun.run.event import RunEvent as RunEvent
    from pgrun.run.media import File as File
    from pgrun.run.media import Image as Image
    from pgrun.run.metrics import RunMetrics as RunMetrics
    from pgrun.run.progress import Progress as Progress
    from pgrun.run.requirement import RunRequirement as RunRequirement
    from pgrun.run.task_context import SyncTaskContext as SyncTaskContext
    from pgrun.run.task_context import TaskContext as TaskContext
    from pgrun.run.tools import Tool as Tool
    from pgrun.run.tools import tool as tool
    from pgrun.settings import Settings as Settings
    from pgrun.task import Task as Task
    from pgrun.verdict import Discard as Discard
    from pgrun.verdict import Retry as Retry
    from pgrun.verdict import Snooze as Snooze
    from pgrun.verdict import Verdict as Verdict
    from pgrun.worker.worker import Worker as Worker

__all__ = [
    "Agent",
    "AnswerQueued",
    "AttemptError",
    "AttemptTimeout",
    "BudgetExceeded",
    "ContentFiltered",
    "DatabaseError",
    "DatabaseUnavailable",
    "DeadlineExceeded",
    "Discard",
    "File",
    "HookFailed",
    "Image",
    "LeaseLost",
    "ModelCallLost",
    "ModelRefused",
    "ModelRejected",
    "ModelUnavailable",
    "OpenAIChat",
    "OpenAIResponses",
    "OutputInvalid",
    "OutputTruncated",
    "PgrunError",
    "PostgresDb",
    "Progress",
    "QuotaExceeded",
    "Retry",
    "RetryPolicy",
    "Run",
    "RunCancelled",
    "RunContext",
    "RunEnded",
    "RunError",
    "RunEvent",
    "RunExpired",
    "RunFailed",
    "RunInput",
    "RunMetrics",
    "RunNotFound",
    "RunOutput",
    "RunRequirement",
    "RunStatus",
    "Schedule",
    "SchemaMismatch",
    "SessionBusy",
    "Settings",
    "Snooze",
    "SyncTaskContext",
    "Task",
    "TaskContext",
    "Tool",
    "ToolExecution",
    "ToolFailed",
    "TurnLimitExceeded",
    "UsageError",
    "Verdict",
    "WaitTimeout",
    "Worker",
    "tool",
]

_HOMES = {
    "Agent": "pgrun.agent",
    "Discard": "pgrun.verdict",
    "File": "pgrun.run.media",
    "Image": "pgrun.run.media",
    "OpenAIChat": "pgrun.models.openai_chat",
    "OpenAIResponses": "pgrun.models.openai",
    "PostgresDb": "pgrun.db.postgres",
    "Progress": "pgrun.run.progress",
    "Retry": "pgrun.verdict",
    "RetryPolicy": "pgrun.retry",
    "Run": "pgrun.run.base",
    "RunContext": "pgrun.run.context",
    "RunEvent": "pgrun.run.event",
    "RunInput": "pgrun.run.context",
    "RunMetrics": "pgrun.run.metrics",
    "RunOutput": "pgrun.run.base",
    "RunRequirement": "pgrun.run.requirement",
    "RunStatus": "pgrun.run.base",
    "Schedule": "pgrun.db.schedules",
    "Settings": "pgrun.settings",
    "Snooze": "pgrun.verdict",
    "SyncTaskContext": "pgrun.run.task_context",
    "Task": "pgrun.task",
    "TaskContext": "pgrun.run.task_context",
    "Tool": "pgrun.run.tools",
    "ToolExecution": "pgrun.run.base",
    "Verdict": "pgrun.verdict",
    "Worker": "pgrun.worker.worker",
    "tool": "pgrun.run.tools",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "pgrun.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


def _serve_embedded(db: Any, queues: set[str]) -> Coroutine[Any, Any, None]:
    from pgrun.worker.embedded import serve_embedded

    return serve_embedded(db, queues)


def _make_task(*args: Any, **options: Any) -> Any:
    from pgrun.task import Task

    return Task(*args, **options)


def _cancel_run(run_id: str) -> Coroutine[Any, Any, bool | None]:
    from pgrun._agents_here import cancel_anywhere

    return cancel_anywhere(run_id)


_hosting.embedded_worker = _serve_embedded
_hosting.cancel_run = _cancel_run
_hosting.make_task = _make_task
