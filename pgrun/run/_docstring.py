"""What the docstring of a function tells a model: what it does, and what each parameter means."""

import inspect
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Docstring:
    """A docstring without its sections about results and errors.

    Attributes:
        text: What the function does.
        parameters: What each means, on one line.
    """

    text: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


def read_docstring(docstring: str | None) -> Docstring:
    """Reads the styles of Google, numpy, Sphinx and Epydoc; what is in none of them is text as a whole."""
    if not docstring:
        return Docstring()
    import docstring_parser  # 20 ms that a program without tools need not pay

    try:
        parsed = docstring_parser.parse(docstring)
    except docstring_parser.ParseError:
        return Docstring(inspect.cleandoc(docstring))
    described = {
        name.strip(): " ".join(each.description.split())
        for each in parsed.params
        for name in each.arg_name.split(",")
        if each.description
    }
    return Docstring((parsed.description or "").strip(), described)
