"""`Progress`: how far a task says that it has come."""

import math
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from pgrun.errors import UsageError


class Progress(BaseModel):
    """How far a run has come, as its task said last; what it did not say is None."""

    model_config = ConfigDict(frozen=True)

    fraction: float | None = None
    """From 0 to 1."""
    done: float | None = None
    total: float | None = None
    message: str | None = None
    updated_at: datetime | None = None


def progress_of(reached: float | tuple[float, float] | None, message: str | None) -> dict[str, Any]:
    """What a task says, as it is stored.

    Raises:
        UsageError: It is no share from 0 to 1, and no pair of what is done and what there is in all.
    """
    said: dict[str, Any] = {"message": message} if message else {}
    if reached is None:
        return said
    match reached:
        case (int() | float() as done, int() | float() as total) if math.isfinite(done) and 0 < total < math.inf:
            return {"fraction": min(max(done / total, 0.0), 1.0), "done": done, "total": total, **said}
        case int() | float() if 0 <= reached <= 1:
            return {"fraction": float(reached), **said}
    raise UsageError(f"progress({reached!r}): a share from 0 to 1, or a pair (done, total)")
