"""The state of a session as tools see it: plain JSON data that they may change, and what they have changed in it.

Changes are found by comparing, and merged piece by piece into the state as it then is, so that runs that work at the same
time lose nothing of each other's.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

from pgrun.run._storable import to_jsonable

State = dict[str, Any]
Change = dict[str, Any]
"""`path`, a list of keys; `op`: set, default (if nothing is there), remove, append (to a list), add (to a number); `value`."""


class View(NamedTuple):
    """A state in the hands of one call, which may change it."""

    state: State
    before: State
    added: list[Change]
    """To numbers; a difference would not tell an addition from another value."""

    def add(self, key: str, number: float) -> None:
        """Adds to a number; what others add at the same time counts as well."""
        change = {"path": [key], "op": "add", "value": number}
        self.added.append(change)
        for each in (self.state, self.before):
            _apply(each, change)

    def changes(self) -> list[Change]:
        """What is different now."""
        return [*self.added, *_differences(self.before, self.state, [])]


def storable_changes(view: View) -> list[Change]:
    """What is different in a view, as JSON data.

    Raises:
        UsageError: The state has become something that cannot be stored; the message has the path.
    """
    to_jsonable(view.state, name="session_state")
    changes: list[Change] = to_jsonable(view.changes(), name="session_state")
    return changes


def view_of(state: Mapping[str, Any]) -> View:
    """A state to be changed, apart from all others."""
    return View(deepcopy({**state}), deepcopy({**state}), [])


def changed(state: State, changes: Sequence[Change]) -> State:
    """The state after some changes, as the database makes them."""
    result = deepcopy(state)
    for change in changes:
        _apply(result, change)
    return result


def merging(values: Mapping[str, Any], path: Sequence[str] = ()) -> list[Change]:
    """The changes that set these values, object by object: what is not mentioned stays."""
    found: list[Change] = []
    for key, value in values.items():
        here = [*path, key]
        if isinstance(value, Mapping) and value:
            found += merging(value, here)
        else:
            found.append({"path": here, "op": "set", "value": value})
    return found


def beginning(defaults: Mapping[str, Any], given: Mapping[str, Any], state: State) -> list[Change]:
    """The changes with which a run begins: what is missing of the agent's defaults, then what the run was given."""
    missing = [key for key in defaults if key not in state]
    return [{"path": [key], "op": "default", "value": defaults[key]} for key in missing] + merging(given)


def merge(state: State, values: Mapping[str, Any]) -> None:
    """Sets these values, object by object."""
    for change in merging(values):
        _apply(state, change)


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], path: list[str]) -> Iterator[Change]:
    for key in [*before, *(key for key in after if key not in before)]:
        here, old, new = [*path, key], before.get(key), after.get(key)
        if key not in after:
            yield {"path": here, "op": "remove"}
        elif key not in before and isinstance(new, dict):  # others may begin the same
            yield {"path": here, "op": "default", "value": {}}
            yield from _differences({}, new, here)
        elif key not in before and isinstance(new, list):
            yield {"path": here, "op": "append", "value": new}
        elif key not in before:
            yield {"path": here, "op": "set", "value": new}
        elif isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, here)
        elif isinstance(old, list) and isinstance(new, list) and len(new) > len(old) and new[: len(old)] == old:
            yield {"path": here, "op": "append", "value": new[len(old) :]}
        elif old != new or isinstance(old, bool) is not isinstance(new, bool):
            yield {"path": here, "op": "set", "value": new}


def _apply(state: State, change: Change) -> None:
    """In place; the path is not empty."""
    *way, key = change["path"]
    for step in way:
        if not isinstance(state.get(step), dict):
            if change["op"] == "remove":
                return
            state[step] = {}
        state = state[step]
    value: Any = deepcopy(change.get("value"))
    match change["op"], state.get(key):
        case "remove", _:
            state.pop(key, None)
        case "default", _ if key in state:
            pass
        case "append", list(found):
            state[key] = [*found, *value]
        case "add", int(found) | float(found):
            state[key] = found + value
        case _:
            state[key] = value
