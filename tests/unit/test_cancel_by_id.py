"""`pgrun.run.cancel` and `pgrun.run.concurrency`: for programs that know neither agent nor worker."""

from collections.abc import Iterator

import pytest

from pgrun import UsageError
from pgrun._ids import new_run_id
from pgrun.run import cancel, concurrency


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    most = concurrency.get_background_max_concurrency()
    yield
    concurrency.set_background_max_concurrency(most)
    cancel._unwanted.clear()


def test_a_run_that_is_nowhere_yet_is_remembered() -> None:
    run_id = new_run_id()
    assert not cancel.is_unwanted(run_id)
    assert cancel.cancel_run(run_id) is False
    assert cancel.is_unwanted(run_id)


async def test_inside_an_event_loop_it_does_not_wait() -> None:
    run_id = new_run_id()
    assert cancel.cancel_run(run_id) is False
    assert cancel.is_unwanted(run_id)
    assert await cancel.acancel_run(run_id) is False


def test_an_id_is_a_uuid() -> None:
    with pytest.raises(UsageError, match="run_id 'rome' is not a UUID"):
        cancel.cancel_run("rome")


def test_at_least_one_run_at_a_time() -> None:
    concurrency.set_background_max_concurrency(2)
    assert concurrency.get_background_max_concurrency() == 2
    for wrong in (0, -1, 1.5):
        with pytest.raises(UsageError, match="at least one run at a time"):
            concurrency.set_background_max_concurrency(wrong)  # type: ignore[arg-type]
