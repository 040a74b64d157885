"""Where the face of the package plugs higher layers into the database layer, which must not import them.

`PostgresDb` in mode auto or embedded executes runs in its own process; the worker that does it sits two layers above. And
``db.task`` makes what users declare, one layer above.
"""

from collections.abc import Callable, Coroutine
from typing import Any

embedded_worker: Callable[[Any, set[str]], Coroutine[Any, Any, None]] | None = None
"""Serves the queues of a set that may grow, for one `PostgresDb`, until it is cancelled. Set by `pgrun/__init__.py`."""

cancel_run: Callable[[str], Coroutine[Any, Any, bool | None]]
"""Cancels a run of any agent of this process; whether it did, None if there is no such run. Set by `pgrun/__init__.py`."""

make_task: Callable[..., Any]
"""Makes a task of a `PostgresDb`, a function and the options of ``db.task``. Set by `pgrun/__init__.py`."""
