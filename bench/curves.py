"""Draw latency distributions as an SVG: a panel for each load, a curve for each server.

A curve shows which share of the requests took longer than so long; both axes are logarithmic, so that the slowest in a
thousand have as much room as the fastest half.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from bench.plot import COLUMNS, MARGIN, OURS, PANEL_WIDTH, TITLE_HEIGHT

PLOT_HEIGHT, LEFT, BOTTOM = 230, 60, 36
LEGEND_COLUMNS, LEGEND_ROW = 4, 20
LEAST_SHARE = 1e-4
STYLES = {
    "prefork": f'stroke="{OURS}" stroke-width="2.5"',
    "ideal single queue": 'stroke="#1e293b" stroke-width="1.5" stroke-dasharray="5 4"',
}
OTHERS = ("#2563eb", "#059669", "#9333ea", "#64748b", "#db2777", "#b59b00")
INK, GRID = "#1e293b", "#e2e8f0"

Latencies = Mapping[str, Sequence[float]]
"""In seconds, in ascending order, by server."""


def curves(panels: Mapping[str, Latencies]) -> str:
    """Return the drawing; ``panels`` maps titles to latencies. All panels have the same axes."""
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    colours = iter(OTHERS)
    styles = {name: STYLES.get(name) or f'stroke="{next(colours)}" stroke-width="1.5"' for name in names}
    everything = [latencies for panel in panels.values() for latencies in panel.values()]
    scale = Scale(
        min(latencies[0] for latencies in everything), max(latencies[-1] for latencies in everything)
    )
    height = TITLE_HEIGHT + PLOT_HEIGHT + BOTTOM + MARGIN
    total_width = COLUMNS * PANEL_WIDTH + MARGIN
    legend_height = (1 + -(-len(names) // LEGEND_COLUMNS)) * LEGEND_ROW + MARGIN
    total_height = legend_height + -(-len(panels) // COLUMNS) * height + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_width} {total_height}"'
        f' font-family="sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{total_width}" height="{total_height}" fill="white"/>',
        f'<text x="{MARGIN}" y="{MARGIN + 4}">Share of the fast requests that took longer than …</text>',
        *legend(styles),
    ]
    for number, (title, latencies) in enumerate(panels.items()):
        left = MARGIN + number % COLUMNS * PANEL_WIDTH
        top = legend_height + MARGIN + number // COLUMNS * height
        lines += [f'<g transform="translate({left} {top})">', *panel(title, latencies, styles, scale), "</g>"]
    return "\n".join([*lines, "</svg>\n"])


class Scale:
    """Where a latency and a share stand in a panel."""

    def __init__(self, least_s: float, most_s: float) -> None:
        self.first, self.last = math.floor(math.log10(least_s)), math.ceil(math.log10(most_s))
        self.width = PANEL_WIDTH - LEFT - 2 * MARGIN

    def x(self, latency_s: float) -> float:
        return LEFT + (math.log10(latency_s) - self.first) / (self.last - self.first) * self.width

    def y(self, share: float) -> float:
        return TITLE_HEIGHT + math.log10(share) / math.log10(LEAST_SHARE) * PLOT_HEIGHT


def legend(styles: Mapping[str, str]) -> Iterator[str]:
    for number, (name, style) in enumerate(styles.items()):
        x = MARGIN + number % LEGEND_COLUMNS * COLUMNS * PANEL_WIDTH // LEGEND_COLUMNS
        y = MARGIN + (1 + number // LEGEND_COLUMNS) * LEGEND_ROW
        yield f'<path d="M{x} {y}h22" fill="none" {style}/>'
        yield f'<text x="{x + 28}" y="{y + 4}">{escape(name)}</text>'


def panel(title: str, latencies: Latencies, styles: Mapping[str, str], scale: Scale) -> Iterator[str]:
    """Yield the axes and the curves of one load."""
    bottom = TITLE_HEIGHT + PLOT_HEIGHT
    yield f'<text x="0" y="12" font-weight="bold">{escape(title)}</text>'
    for exponent in range(scale.first, scale.last + 1):
        x = scale.x(10.0**exponent)
        yield f'<path d="M{x:.1f} {TITLE_HEIGHT}V{bottom}" stroke="{GRID}"/>'
        label = f"{10.0**exponent:g} s" if exponent >= 0 else f"{10.0 ** (exponent + 3):g} ms"
        yield f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{label}</text>'
    for exponent in range(round(math.log10(LEAST_SHARE)), 1):
        y = scale.y(10.0**exponent)
        yield f'<path d="M{LEFT} {y:.1f}h{scale.width}" stroke="{GRID}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0 ** (exponent + 2):g} %</text>'
    for name, ordered in sorted(latencies.items(), key=lambda item: item[0] in STYLES):  # ours on top
        points = [f"{scale.x(latency):.1f} {scale.y(share):.1f}" for latency, share in tail(ordered)]
        yield f'<path d="M{"L".join(points)}" fill="none" {styles[name]}/>'


def tail(ordered: Sequence[float], points_a_decade: int = 24) -> Iterator[tuple[float, float]]:
    """Yield latencies and the share of requests that took at least as long, evenly along the axis of shares."""
    least = max(LEAST_SHARE, 1 / len(ordered))
    steps = max(1, round(-math.log10(least) * points_a_decade))
    for step in range(steps + 1):
        share = least ** (step / steps)
        yield ordered[min(int(len(ordered) * (1 - share)), len(ordered) - 1)], share
