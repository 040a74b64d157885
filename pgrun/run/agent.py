"""What programs import from here that write hooks: ``from pgrun.run.agent import RunInput, RunOutput``."""

from pgrun.run.base import RunOutput as RunOutput
from pgrun.run.context import RunInput as RunInput
