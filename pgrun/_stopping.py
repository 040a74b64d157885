"""Stops what a provider still works on for runs that have ended, wherever that is noticed: by who cancels, or by a worker."""

import logging
from collections.abc import Callable, Sequence

import anyio

from pgrun.db.records import LeftCall
from pgrun.db.verbs import Verbs
from pgrun.errors import PgrunError
from pgrun.models.base import BackgroundModel
from pgrun.run.definition import AgentDefinition
from pgrun.run.metrics import RunMetrics

_log = logging.getLogger("pgrun")

_PATIENCE = 10.0  # seconds for all of them; then another tries, a minute later

Find = Callable[[str, str | None], AgentDefinition | None]
"""Finds the definition of an agent by its name and what travelled with its run."""


async def stop_left_calls(verbs: Verbs, left: Sequence[LeftCall], find: Find) -> None:
    """Has the providers stop these answers; what cannot be stopped is logged, and left to another try."""
    with anyio.move_on_after(_PATIENCE):
        async with anyio.create_task_group() as tasks:
            for each in left:
                tasks.start_soon(_stop, verbs, each, find)


async def _stop(verbs: Verbs, left: LeftCall, find: Find) -> None:
    try:
        definition = find(left.name, left.definition)
        asked = (definition.model, definition.parser_model) if definition is not None else ()
        if models := [model for model in asked if isinstance(model, BackgroundModel)]:
            used = [await model.stop(left.response_id) for model in models]  # nobody noted which of them it is from
            total = sum((each for each in used if each is not None), RunMetrics())
            await verbs.forget_left_call(left, total.model_dump(exclude_defaults=True))
    except PgrunError as error:
        _log.warning("%s of run %s is not stopped at its provider yet: %s", left.response_id, left.run_id, error)
