"""How a request tells of tools, in either API of OpenAI: they differ in how they write one down."""

from collections.abc import Callable, Mapping
from typing import Any

from pgrun.models.base import TOOL_CHOICES, ModelRequest, ToolSpec


def tool_arguments(
    request: ModelRequest,
    described: Callable[[ToolSpec], Mapping[str, Any]],
    chosen: Callable[[str], Mapping[str, Any]],
) -> dict[str, Any]:
    """The arguments that tell of tools; none if there are none.

    Args:
        request: What is asked.
        described: Writes down what a tool is.
        chosen: Writes down that the tool of this name has to be called.
    """
    if not request.tools:
        return {}
    tools = {"tools": [described(spec) for spec in request.tools]}
    choice = request.tool_choice
    if choice is None:
        return tools
    return tools | {"tool_choice": choice if choice in TOOL_CHOICES else chosen(choice)}
