"""What a call has changed in a state is found by comparing, and merged into a state that others may have changed meanwhile."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrun import RunContext, UsageError
from pgrun.run.state import beginning, changed, storable_changes, view_of

scalars = st.none() | st.integers(-3, 3) | st.sampled_from(["", "a", "b"])
keys = st.sampled_from(["a", "b", "c"])
states = st.dictionaries(
    keys,
    st.recursive(scalars | st.lists(scalars, max_size=3), lambda inner: st.dictionaries(keys, inner, max_size=3)),
    max_size=3,
)


def context(state: dict[str, Any]) -> RunContext:
    return RunContext(run_id="r", session_id="s", agent_name="a", attempt=1, view=view_of(state))


@given(before=states, after=states)
def test_what_is_found_different_leads_to_what_is_there_now(before: dict[str, Any], after: dict[str, Any]) -> None:
    view = view_of(before)
    view.state.clear()
    view.state.update(after)
    assert changed(before, view.changes()) == after


@given(before=states, mine=states, theirs=states)
def test_what_others_set_elsewhere_stays(before: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    state = {"mine": before, "theirs": deepcopy(before)}
    ours, others = view_of(state), view_of(state)
    ours.state["mine"] = mine
    others.state["theirs"] = theirs
    merged = changed(changed(state, others.changes()), ours.changes())
    assert merged == {"mine": mine, "theirs": theirs}


def test_a_list_that_only_grew_is_appended_to() -> None:
    view = view_of({"list": ["a"]})
    view.state["list"] += ["b"]
    assert view.changes() == [{"path": ["list"], "op": "append", "value": ["b"]}]
    assert changed({"list": ["a", "x"]}, view.changes()) == {"list": ["a", "x", "b"]}


def test_additions_count_beside_others() -> None:
    run = context({"n": 1})
    run.add_to_state("n")
    run.add_to_state("n", 2.5)
    run.add_to_state("new", 3)
    assert run.session_state == {"n": 4.5, "new": 3}
    assert changed({"n": 10, "new": 1}, run.view.changes()) == {"n": 13.5, "new": 4}


def test_values_are_set_object_by_object() -> None:
    run = context({"user": {"name": "Ada", "age": 36}, "list": [1]})
    run.update_state({"user": {"age": 37}}, done=True)
    assert run.session_state == {"user": {"name": "Ada", "age": 37}, "list": [1], "done": True}
    assert changed({"user": {"name": "Eve"}}, run.view.changes()) == {"user": {"name": "Eve", "age": 37}, "done": True}


def test_a_call_has_a_state_of_its_own() -> None:
    state: dict[str, Any] = {"list": []}
    view = view_of(state)
    view.state["list"].append(1)
    assert state == {"list": []}


def test_a_run_begins_with_what_is_missing_and_what_it_was_given() -> None:
    changes = beginning({"a": 1, "b": {"x": 1}}, {"b": {"y": 2}, "c": 3}, {"a": 0})
    assert changed({"a": 0}, changes) == {"a": 0, "b": {"x": 1, "y": 2}, "c": 3}


def test_what_cannot_be_stored_is_named() -> None:
    run = context({})
    run.session_state["deep"] = {"thing": object()}
    with pytest.raises(UsageError, match=r"session_state\.deep.thing: is of type object"):
        storable_changes(run.view)
