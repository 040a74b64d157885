"""What was paid: `work` enters here what each response has cost, once, however often it is looked at afterwards."""

import threading
from collections.abc import Mapping

from pgrun.testing.answers import Usage


class Bill:
    """Tokens by response id, in the order in which they were paid."""

    def __init__(self) -> None:
        self._paid: dict[str, Usage] = {}
        self._lock = threading.Lock()

    def enter(self, response_id: str, usage: Usage) -> None:
        """Enter what a response has cost; the first entry stands."""
        with self._lock:
            self._paid.setdefault(response_id, usage)

    @property
    def by_response(self) -> Mapping[str, Usage]:
        """What each paid response has cost so far."""
        with self._lock:
            return dict(self._paid)

    @property
    def total(self) -> Usage:
        """The sum of it all."""
        paid = self.by_response.values()
        return Usage(
            sum(usage.input_tokens for usage in paid),
            sum(usage.output_tokens for usage in paid),
            sum(usage.cached_tokens for usage in paid),
            sum(usage.reasoning_tokens for usage in paid),
        )
