"""Horizontal bars as SVG text: small, and readable on light and on dark pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _NAMES, _LONGEST = 760, 290, 370  # pixels: the picture, the column of names, the longest bar
_TOP, _ROW, _BAR = 58, 26, 16  # pixels: above the first row, from row to row, the thickness of a bar
_STYLE = """
text { font-family: system-ui, sans-serif; font-size: 13px; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.note { fill: #59636e }
.bar { fill: #a5adb6 }
.ours { fill: #2f81f7 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .note { fill: #9198a1 }
  .bar { fill: #656c76 }
}
"""


@dataclass(frozen=True)
class Bar:
    """One row; those of pgrun stand out."""

    name: str
    value: float
    is_ours: bool = True


@dataclass(frozen=True)
class Chart:
    """What one picture shows; the note says the unit, and which direction is better."""

    name: str
    title: str
    note: str
    bars: Sequence[Bar]

    def svg(self) -> str:
        """The picture; bars begin at 0 and the longest fills the width."""
        height = _TOP + _ROW * len(self.bars)
        most = max((bar.value for bar in self.bars), default=0) or 1
        rows = "".join(_row(bar, _TOP + _ROW * place, bar.value / most) for place, bar in enumerate(self.bars))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
            f' role="img">\n<title>{escape(self.title)}</title>\n<style>{_STYLE}</style>\n'
            f'<text class="title" x="8" y="22">{escape(self.title)}</text>\n'
            f'<text class="note" x="8" y="42">{escape(self.note)}</text>\n{rows}</svg>\n'
        )


def _row(bar: Bar, y: int, share: float) -> str:
    length = round(_LONGEST * share, 1)
    kind = "ours" if bar.is_ours else "bar"
    middle = y + _BAR - 3
    return (
        f'<text x="{_NAMES - 8}" y="{middle}" text-anchor="end">{escape(bar.name)}</text>'
        f'<rect class="{kind}" x="{_NAMES}" y="{y}" width="{length}" height="{_BAR}" rx="2"/>'
        f'<text x="{_NAMES + length + 6}" y="{middle}">{_figure(bar.value)}</text>\n'
    )


def _figure(value: float) -> str:
    """Three digits at least, as people write them."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"
