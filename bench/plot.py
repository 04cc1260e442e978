"""Bars in panels, as an SVG that needs no library and reads in light and dark pages.

Each bar ends at the median; the thin line over it reaches from the least to the most of all
rounds. Every panel has its own scale that begins at zero.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

PANEL_WIDTH = 460
COLUMNS = 2
MARGIN = 28
HEAD = 62
LABEL_WIDTH = 156
VALUE_WIDTH = 74
BAR = 20
GAP = 10
FOOT = 46

STYLE = """
svg { background: #ffffff; font-family: system-ui, -apple-system, "Segoe UI", sans-serif; }
.title { font-size: 16px; font-weight: 600; fill: #1c2430; }
.subtitle, .caption { font-size: 12px; fill: #667085; }
.label { font-size: 13px; fill: #344054; text-anchor: end; }
.value { font-size: 13px; fill: #1c2430; font-weight: 600; font-variant-numeric: tabular-nums; }
.axis { stroke: #d0d5dd; }
.range { stroke: #1c2430; stroke-width: 1.5; }
.floor { fill: #98a2b3; } .peer { fill: #e6a23c; } .ours { fill: #2b6cb0; }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117; }
  .title, .value { fill: #e6edf3; } .subtitle, .caption { fill: #8b949e; }
  .label { fill: #c9d1d9; } .axis { stroke: #30363d; } .range { stroke: #e6edf3; }
  .floor { fill: #6e7681; } .peer { fill: #d29922; } .ours { fill: #388bfd; }
}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One value, with the range it was found in."""

    label: str
    value: float
    least: float
    most: float
    text: str
    style: str
    """`floor`, `peer` or `ours`."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars that share a scale."""

    title: str
    subtitle: str
    bars: Sequence[Bar]

    @property
    def height(self) -> int:
        """What it takes on the page."""
        return HEAD + len(self.bars) * (BAR + GAP) + 18


def draw(panels: Sequence[Panel], caption: str) -> str:
    """The whole picture."""
    rows = [panels[i : i + COLUMNS] for i in range(0, len(panels), COLUMNS)]
    width = COLUMNS * PANEL_WIDTH + 2 * MARGIN
    body: list[str] = []
    top = MARGIN
    for row in rows:
        for column, panel in enumerate(row):
            body += _panel(panel, MARGIN + column * PANEL_WIDTH, top)
        top += max(panel.height for panel in row)
    height = top + FOOT
    body.append(_text(MARGIN, height - 20, "caption", f"{caption} · lines: least to most"))
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        "<title>Benchmark: this server beside others</title>",
        f"<style>{STYLE}</style>",
        *body,
        "</svg>",
        "",
    ])


def _panel(panel: Panel, left: int, top: int) -> Iterator[str]:
    yield _text(left, top + 16, "title", panel.title)
    yield _text(left, top + 36, "subtitle", panel.subtitle)
    start = left + LABEL_WIDTH
    room = PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH - MARGIN
    # A panel whose values are all zero still has a scale.
    most = max(bar.most for bar in panel.bars) or 1.0
    for place, bar in enumerate(panel.bars):
        y = top + HEAD + place * (BAR + GAP)
        length, least, far = (
            room * value / most for value in (bar.value, bar.least, bar.most)
        )
        yield _text(start - 10, y + 15, "label", bar.label)
        yield (
            f'<rect class="{bar.style}" x="{start}" y="{y}" width="{max(1.0, length):.1f}" '
            f'height="{BAR}" rx="3"/>'
        )
        middle = y + BAR / 2
        yield (
            f'<line class="range" x1="{start + least:.1f}" x2="{start + far:.1f}" '
            f'y1="{middle}" y2="{middle}"/>'
        )
        yield _text(round(start + max(length, far)) + 8, y + 15, "value", bar.text)
    bottom = top + HEAD + len(panel.bars) * (BAR + GAP)
    yield f'<line class="axis" x1="{start}" x2="{start}" y1="{top + HEAD - 6}" y2="{bottom - 2}"/>'


def _text(x: int, y: int, style: str, text: str) -> str:
    return f'<text class="{style}" x="{x}" y="{y}">{escape(text)}</text>'
