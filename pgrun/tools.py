"""What programs import from here that declare tools: ``from pgrun.tools import tool``."""

from pgrun.errors import ToolFailed as ToolFailed
from pgrun.run.context import RunContext as RunContext
from pgrun.run.tools import Tool as Tool
from pgrun.run.tools import tool as tool
