"""What an agent lets people decide: the calls that its paused runs wait for."""

from collections.abc import Iterable
from functools import partial
from typing import Any, TypeVar, overload

from pgrun._agent_declared import Declared
from pgrun._agent_runs import Handle, checked, read, schema_of
from pgrun._ids import check_run_id
from pgrun._sync import run_sync
from pgrun.db.waiting import not_found
from pgrun.run.base import RunOutput
from pgrun.run.requirement import RunRequirement, mark_stored, not_stored

S = TypeVar("S")
Requirements = Iterable[RunRequirement]


class Decides(Declared):
    """These methods of `Agent`."""

    @overload
    async def acontinue_run(
        self, run: RunOutput[S], *, requirements: Requirements | None = None, background: bool = False
    ) -> RunOutput[S]: ...
    @overload
    async def acontinue_run(
        self,
        *,
        run_id: str,
        session_id: str | None = None,
        requirements: Requirements | None = None,
        output_schema: type[S],
        background: bool = False,
    ) -> RunOutput[S]: ...
    @overload
    async def acontinue_run(
        self,
        *,
        run_id: str,
        session_id: str | None = None,
        requirements: Requirements | None = None,
        output_schema: Any = None,
        background: bool = False,
    ) -> RunOutput[Any]: ...
    async def acontinue_run(
        self,
        run: RunOutput[Any] | None = None,
        *,
        run_id: str | None = None,
        session_id: str | None = None,
        requirements: Requirements | None = None,
        output_schema: Any = None,
        background: bool = False,
    ) -> RunOutput[Any]:
        """Stores what a person has decided on the calls that a paused run waits for, so that it goes on, on any worker.

        A run that waits for nobody goes on by itself, also one whose worker has died; then this only waits for it.

        Args:
            run: The paused run, whose `active_requirements` have been decided on.
            run_id: Its id, instead.
            session_id: Only if it belongs to this session.
            requirements: The decisions, if they are not in `run`.
            output_schema: Type of `content`; by default as in `run`, or as `aget_run_output` has it.
            background: Return as soon as the decisions are stored.

        Returns:
            As `arun`; in the foreground the paused run again as long as something is still open, or open anew. Cancelling a
            foreground call does not cancel the run: the decisions stand.

        Raises:
            UsageError: Nothing was decided, or a decision does not fit or was taken otherwise already. Those before it stand.
            RunNotFound: There is no such run.
            RunFailed: The foreground run ended in `error`.
            RunCancelled: Someone cancelled the foreground run.
        """
        db = self._needs_db()
        run_id = check_run_id(run.run_id if run else run_id)
        verbs = (await db.connected()).verbs
        row = await verbs.get(run_id)
        if row is None or (session_id is not None and row["session_id"] != session_id):
            raise not_found(run_id)
        known = run._handle.schema if run and isinstance(run._handle, Handle) else None
        schema = schema_of(output_schema) or known or self._schema_for(row)
        decided = run.requirements if requirements is None and run else requirements or ()
        new = not_stored(decided, waiting=read(db, row, None).active_requirements)
        await db.approve(run_id, [each.decision() for each in new], queue=row["queue"])
        mark_stored(new)
        if background:
            return read(db, await verbs.get(run_id) or row, schema)
        return checked(await Handle(db, schema).settle(run_id))

    @overload
    def continue_run(
        self, run: RunOutput[S], *, requirements: Requirements | None = None, background: bool = False
    ) -> RunOutput[S]: ...
    @overload
    def continue_run(
        self,
        *,
        run_id: str,
        session_id: str | None = None,
        requirements: Requirements | None = None,
        output_schema: type[S],
        background: bool = False,
    ) -> RunOutput[S]: ...
    @overload
    def continue_run(
        self,
        *,
        run_id: str,
        session_id: str | None = None,
        requirements: Requirements | None = None,
        output_schema: Any = None,
        background: bool = False,
    ) -> RunOutput[Any]: ...
    def continue_run(
        self,
        run: RunOutput[Any] | None = None,
        *,
        run_id: str | None = None,
        session_id: str | None = None,
        requirements: Requirements | None = None,
        output_schema: Any = None,
        background: bool = False,
    ) -> RunOutput[Any]:
        """The same as `acontinue_run`, for code without an event loop."""
        which: dict[str, Any] = {"run_id": run_id, "session_id": session_id, "requirements": requirements}
        return run_sync(partial(self.acontinue_run, run, **which, output_schema=output_schema, background=background))
