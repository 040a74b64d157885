"""Run ids: UUIDv7, so that they sort by the time they were made."""

import time
from uuid import RFC_4122, UUID

from pgrun._ids import new_run_id


def milliseconds_of(run_id: str) -> int:
    return UUID(run_id).int >> 80


def test_an_id_is_a_uuid_of_version_7_in_its_canonical_form() -> None:
    for _ in range(100):
        run_id = new_run_id()
        assert UUID(run_id).version == 7
        assert UUID(run_id).variant == RFC_4122
        assert str(UUID(run_id)) == run_id


def test_an_id_begins_with_the_moment_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    run_id = new_run_id()
    assert before <= milliseconds_of(run_id) <= time.time_ns() // 1_000_000


def test_ids_made_in_different_milliseconds_sort_as_text_in_that_order() -> None:
    by_moment: dict[int, str] = {}
    while len(by_moment) < 5:
        run_id = new_run_id()
        by_moment[milliseconds_of(run_id)] = run_id
    assert sorted(by_moment.values()) == [by_moment[moment] for moment in sorted(by_moment)]


def test_ids_are_unique_and_use_all_their_random_bits() -> None:
    ids = [UUID(new_run_id()).int for _ in range(100_000)]
    assert len(set(ids)) == len(ids)
    ever_set, always_set = 0, ~0
    for value in ids:
        ever_set |= value
        always_set &= value
    random_bits = (1 << 76) - 1 & ~(0b11 << 62)
    assert ever_set & random_bits == random_bits
    assert always_set & random_bits == 0
