"""What an agent lets people do with what is under way: say something to an open run, cancel it, change the state of a session."""

from collections.abc import Mapping
from typing import Any

from pgrun._agent_declared import Declared
from pgrun._agents_here import cancel
from pgrun._ids import check_run_id
from pgrun._sync import run_sync
from pgrun.errors import UsageError
from pgrun.run._storable import to_jsonable
from pgrun.run.base import RunStatus
from pgrun.run.options import check_name
from pgrun.run.state import Change, merging


class Talks(Declared):
    """These methods of `Agent`."""

    async def acancel_run(self, run_id: str) -> bool:
        """Cancels a run, whoever executes it: one that waits at once, a running one by stopping its call to the model.

        A provider that goes on with an answer by itself is told to stop: by the worker that executes the run, or from here if
        that worker is dead.

        Returns:
            Whether it is cancelled or being cancelled; False if it had already ended otherwise.

        Raises:
            RunNotFound: There is no such run.
        """
        return await cancel(self._needs_db(), check_run_id(run_id))

    def cancel_run(self, run_id: str) -> bool:
        """The same as `acancel_run`, for code without an event loop."""
        return run_sync(self.acancel_run, run_id)

    async def asteer(self, run_id: str, message: str) -> RunStatus:
        """Says something to a run that is under way: the model reads it before its next answer, also if it was about to end.

        Returns:
            The status of the run. One that is pending hears it when it begins, after its input.

        Raises:
            RunEnded: It has ended, or is being cancelled.
            RunNotFound: There is no such run.
            UsageError: It executes a task, or the message cannot be stored.
        """
        db = self._needs_db()
        return RunStatus(await (await db.connected()).verbs.steer(check_run_id(run_id), check_name("message", message)))

    def steer(self, run_id: str, message: str) -> RunStatus:
        """The same as `asteer`, for code without an event loop."""
        return run_sync(self.asteer, run_id, message)

    async def aget_session_state(self, session_id: str) -> dict[str, Any]:
        """The state of a session as it is now, see `RunContext.session_state`; empty for one that nobody knows."""
        return await (await self._needs_db().connected()).verbs.session_state(check_name("session_id", session_id))

    def get_session_state(self, session_id: str) -> dict[str, Any]:
        """The same as `aget_session_state`, for code without an event loop."""
        return run_sync(self.aget_session_state, session_id)

    async def aset_session_state(self, session_id: str, state: Mapping[str, Any]) -> dict[str, Any]:
        """Puts another state in place of the one that is there, and returns it.

        Raises:
            UsageError: It cannot be stored; the message has the path.
        """
        return await self._change_state(session_id, [{"path": [], "op": "set", "value": _state(state)}])

    def set_session_state(self, session_id: str, state: Mapping[str, Any]) -> dict[str, Any]:
        """The same as `aset_session_state`, for code without an event loop."""
        return run_sync(self.aset_session_state, session_id, state)

    async def aupdate_session_state(self, session_id: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Sets these values in it, object by object, and returns all of it; what is not mentioned stays.

        Raises:
            UsageError: They cannot be stored; the message has the path.
        """
        return await self._change_state(session_id, merging(_state(values)))

    def update_session_state(self, session_id: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """The same as `aupdate_session_state`, for code without an event loop."""
        return run_sync(self.aupdate_session_state, session_id, values)

    async def _change_state(self, session_id: str, changes: list[Change]) -> dict[str, Any]:
        verbs = (await self._needs_db().connected()).verbs
        return await verbs.change_session_state(check_name("session_id", session_id), changes)


def _state(values: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise UsageError(f"session_state: a dict, not {values!r:.100}")
    state: dict[str, Any] = to_jsonable(values, name="session_state")
    return state
