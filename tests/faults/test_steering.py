"""What is said to a run is said once and heard, whatever answer of the database is lost."""

import pytest
from support.netfault import Proxy
from support.settings import FAST
from support.steered import LOOK, Steered

from pgrun import PostgresDb, Worker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


@pytest.mark.parametrize("statement", ["steer_run", "finish_runs", "release_unheard", "record_step"])
async def test_a_lost_answer_says_nothing_twice_and_loses_nothing(proxy: Proxy, statement: str) -> None:
    async with PostgresDb(proxy.conninfo, worker="external", settings=FAST) as db, Worker(db):
        steered = Steered(db, LOOK, "Sun.", "Wind.")
        proxy.lose_answer(statement)
        assert await steered.answer({1: "And the wind?"}) == "Wind."
    assert proxy.lost == [statement]
    assert [text for role, text in steered.shown(2) if role == "user"] == ["Rome?", "And the wind?"]
    assert len(steered.model.asked) == 3
