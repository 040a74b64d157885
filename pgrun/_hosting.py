"""Where the face of the package plugs the worker into the database layer, which must not import it.

`PostgresDb` in mode auto or embedded executes runs in its own process; the worker that does it sits two layers above.
"""

from collections.abc import Callable, Coroutine
from typing import Any

embedded_worker: Callable[[Any, set[str]], Coroutine[Any, Any, None]] | None = None
"""Serves the queues of a set that may grow, for one `PostgresDb`, until it is cancelled. Set by `pgrun/__init__.py`."""
