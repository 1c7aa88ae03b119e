"""Draw costs as an SVG: a panel of bars for each scenario, each with a scale of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

COLUMNS, PANEL_WIDTH, LABEL_WIDTH, FIGURE_WIDTH = 2, 460, 130, 60
ROW_HEIGHT, MARGIN, TITLE_HEIGHT = 20, 20, 28
OURS, THEIRS = "#c2410c", "#94a3b8"


def plot(panels: Mapping[str, Mapping[str, float]]) -> str:
    """Return the drawing; ``panels`` maps titles to costs in µs by server."""
    height = TITLE_HEIGHT + MARGIN + ROW_HEIGHT * max(len(costs) for costs in panels.values())
    total_width = COLUMNS * PANEL_WIDTH + MARGIN
    total_height = -(-len(panels) // COLUMNS) * height + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_width} {total_height}"'
        ' font-family="sans-serif" font-size="12" fill="#1e293b">',
        f'<rect width="{total_width}" height="{total_height}" fill="white"/>',
    ]
    for number, (title, costs) in enumerate(panels.items()):
        lines += panel(
            title, costs, MARGIN + number % COLUMNS * PANEL_WIDTH, MARGIN + number // COLUMNS * height
        )
    return "\n".join([*lines, "</svg>\n"])


def panel(title: str, costs: Mapping[str, float], left: int, top: int) -> Iterator[str]:
    """Yield the bars of one scenario, the cheapest server first."""
    yield f'<text x="{left}" y="{top + 12}" font-weight="bold">{escape(title)}: CPU µs per request</text>'
    longest = PANEL_WIDTH - MARGIN - LABEL_WIDTH - FIGURE_WIDTH
    start = left + LABEL_WIDTH
    for number, (name, cost) in enumerate(sorted(costs.items(), key=lambda item: item[1])):
        y = top + TITLE_HEIGHT + number * ROW_HEIGHT
        width = cost / max(costs.values()) * longest
        colour = OURS if name == "prefork" else THEIRS
        yield f'<text x="{start - 8}" y="{y + 11}" text-anchor="end">{escape(name)}</text>'
        yield f'<rect x="{start}" y="{y}" width="{width:.1f}" height="14" fill="{colour}"/>'
        yield f'<text x="{start + width + 6:.1f}" y="{y + 11}">{cost:.1f}</text>'
