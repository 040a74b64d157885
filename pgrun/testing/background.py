"""What goes on without a client, in tasks of the server.

What a stopped server leaves unfinished goes on when it is started again: only the provider's front door was shut.
"""

from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup, TaskStatus

Job = Callable[[], Awaitable[None]]


class Background:
    """Everything that the server does besides answering."""

    def __init__(self) -> None:
        self._unfinished: dict[Job, None] = {}  # in their order
        self._tasks: TaskGroup | None = None

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled, beginning with what was left unfinished."""
        async with anyio.create_task_group() as self._tasks:
            for job in self._unfinished:
                self._tasks.start_soon(self._do, job)
            task_status.started()
            await anyio.sleep_forever()

    def start(self, job: Job) -> None:
        """Do this without anybody waiting for it; a job that is cut off is called again."""
        self._unfinished[job] = None
        if self._tasks is not None:
            self._tasks.start_soon(self._do, job)

    async def _do(self, job: Job) -> None:
        await job()
        del self._unfinished[job]
