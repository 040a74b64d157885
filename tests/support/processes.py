"""Real processes: workers and programs that a test starts, hears by their log, sends signals to, and never leaves behind."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from support.until import until

_TESTS = Path(__file__).parent.parent
_WORKER = [sys.executable, "-m", "pgrun", "worker"]


class Process:
    """A process, and all it writes to stdout and stderr; `user` is who it runs as, None is whoever starts it."""

    def __init__(self, arguments: list[str], environ: Mapping[str, str], *, user: str | None = None) -> None:
        self._popen = subprocess.Popen(
            arguments,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            user=user,
            start_new_session=True,  # a Ctrl-C at the tests is not for it
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, name=f"reads process {self.pid}")
        self._reader.start()

    def __repr__(self) -> str:
        return f"<Process {self.pid}, exit code {self._popen.returncode}>\n{self.output}"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def output(self) -> str:
        """What it has written so far."""
        return "".join(self._lines)

    @property
    def says_more(self) -> bool:
        """Whether it, or a process that it has started, can still write to its output."""
        return self._reader.is_alive()

    async def says(self, pattern: str, *, within: float = 10.0) -> re.Match[str]:
        """The first place in its output that matches, as soon as it is there."""

        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.output)
            assert match or self.says_more, f"ended without saying {pattern!r}: {self}"
            return match

        match = await until(found, within=within, shown=self)
        assert match
        return match

    async def ends(self, *, within: float = 10.0) -> int:
        """Its exit code, negative after a signal, as soon as it has ended."""
        await until(lambda: self._popen.poll() is not None and not self.says_more, within=within, shown=self)
        self._close()
        return self._popen.returncode

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """End it with SIGKILL, even if it is stopped, and reap it; nothing happens if it has ended."""
        self._popen.kill()
        self._popen.wait()
        self._close()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self._lines.append(line)

    def _close(self) -> None:
        self._reader.join()
        assert self._popen.stdout is not None
        self._popen.stdout.close()


class WorkerProcess(Process):
    """A `pgrun worker`."""

    async def ready(self) -> str:
        """Its worker_id, once it claims runs."""
        return (await self.says(r"worker (\S+) serves", within=15))[1]


class SupervisorProcess(Process):
    """A `pgrun worker --processes N`, with the worker processes it starts, whose output is in its own."""

    async def ready(self, processes: int) -> set[str]:
        """The ids of its workers, once so many have begun to claim runs."""
        await self.says(rf"(?s)(worker \S+ serves.*){{{processes}}}", within=15)
        return set(re.findall(r"worker (\S+) serves", self.output))

    @property
    def workers(self) -> set[int]:
        """The ids of the worker processes that it believes to be alive."""
        ended = re.findall(r"worker process (\d+) ended", self.output)
        return {int(pid) for pid in re.findall(r"worker process (\d+) starts", self.output) if pid not in ended}

    def kill(self) -> None:
        """End it with SIGKILL, and its workers too, which would drain."""
        self.send(signal.SIGKILL)
        if self.says_more:  # else they have ended, and their ids may be others' by now
            for pid in self.workers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        super().kill()


class Processes:
    """Starts processes that know the database and the model server of a test; all have ended when the block ends.

    Args:
        dsn: The database.
        environ: Where the model server is.
        uvloop: Whether they find uvloop.
    """

    def __init__(self, dsn: str, environ: Mapping[str, str], *, uvloop: bool = True) -> None:
        path = [] if uvloop else [str(_TESTS / "support" / "without_uvloop")]
        self._environ = {
            **environ,
            "PGRUN_DATABASE_URL": dsn,
            "PYTHONPATH": os.pathsep.join([*path, str(_TESTS)]),
            "PYTHONUNBUFFERED": "1",
        }
        self._started: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._started:
            process.kill()

    def worker(self, *options: str, lease: float = 2.0, dsn: str | None = None) -> WorkerProcess:
        """``pgrun worker`` with these options, at another address of the database if one is given."""
        environ = self._environ | ({"PGRUN_DATABASE_URL": dsn} if dsn else {})
        process = WorkerProcess([*_WORKER, "--lease", str(lease), *options], environ)
        self._started.append(process)
        return process

    def supervisor(self, processes: int, *options: str, lease: float = 2.0) -> SupervisorProcess:
        """``pgrun worker --processes N`` with these options."""
        arguments = [*_WORKER, "--processes", str(processes), "--lease", str(lease), *options]
        process = SupervisorProcess(arguments, self._environ)
        self._started.append(process)
        return process

    def pgrun(self, *arguments: str) -> Process:
        """Another command of pgrun."""
        return self._start("pgrun", *arguments)

    def program(self, module: str, *arguments: str) -> Process:
        """A program of `tests/support`."""
        return self._start(f"support.{module}", *arguments)

    def script(self, path: Path) -> Process:
        """A program in a file of its own, somewhere else."""
        return self._start_python(str(path))

    def _start(self, module: str, *arguments: str) -> Process:
        return self._start_python("-m", module, *arguments)

    def _start_python(self, *arguments: str) -> Process:
        process = Process([sys.executable, *arguments], self._environ)
        self._started.append(process)
        return process
