"""What a worker remembers of queues with limits: for how long its claims from them waited for those of others."""

from typing import Any, cast

import pytest

from pgrun.db.records import Look
from pgrun.db.verbs import Verbs
from pgrun.errors import DatabaseError
from pgrun.worker.limited import Limited


class Database:
    """Whose claims wait as long as they are told, one after the other; None: the connection breaks."""

    def __init__(self, *waits: float | None) -> None:
        self._waits = [*waits]

    async def claim_limited(self, *_: Any, **__: Any) -> Look:
        waited = self._waits.pop(0)
        if waited is None:
            raise DatabaseError("gone")
        return Look([], None, waited=waited)


@pytest.mark.parametrize(
    ("waits", "expected"),
    [
        ([[0.008]], 0.008),
        ([[0.001, 0.008, 0.002]], 0.008),  # of several queues in one look the longest
        ([[0.008], [0.001]], 0.004),  # one claim that finds nobody is not yet the end of the crowd
        ([[0.008], [0.006]], 0.006),
        ([[0.008], []], 0.004),  # nor a look that asks none of these queues
        ([[0.008], [], [], []], 0.001),
        ([[0.008], [None]], 0.004),
    ],
)
async def test_how_long_claims_have_waited_is_forgotten_by_halves(
    waits: list[list[float | None]], expected: float
) -> None:
    database = Database(*(wait for look in waits for wait in look))
    limited = Limited(cast("Verbs", database), yields=False)
    for look in waits:
        limited.begin_round(["mail"])
        for _ in look:
            await limited.claim_from("mail", "me", [], 1)
    assert limited.waited == pytest.approx(expected)
