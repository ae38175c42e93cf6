"""Draws what loadtests.flat_cost measured as an SVG: a panel for each series, a line for each kind of
call, microseconds from zero up. No library is needed for that.
"""

from __future__ import annotations

import math
from typing import Any, Callable
from xml.sax.saxutils import escape

PANEL_W, PANEL_H = 470, 290
LEFT, RIGHT, TOP, BOTTOM = 52, 150, 44, 46
COLOURS = ("#1f6fb4", "#c4501b", "#2b8a4b", "#7a4fa3")
TEXT_H = 13
STEPS = (10, 20, 50, 100, 200, 500, 1000, 2000)
TICKS_MAX = 6
TITLE = "Time of Redis' scripts per call, in microseconds"


def draw(measures: dict[str, Any]) -> str:
    """The picture of `measures`, as flat_cost's JSON has them, two panels in a row."""
    rows = math.ceil(len(measures) / 2)
    width, height = 2 * PANEL_W + 20, rows * PANEL_H + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11" fill="#333">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="16" y="26" font-size="15" font-weight="bold">{escape(TITLE)}</text>',
    ]
    for number, measure in enumerate(measures.values()):
        parts.append(f'<g transform="translate({10 + number % 2 * PANEL_W},{36 + number // 2 * PANEL_H})">')
        parts += _panel(measure)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(measure: dict[str, Any]) -> list[str]:
    lines = {kind: {int(size): us for size, us in line["us"].items()} for kind, line in measure["calls"].items()}
    sizes = sorted({size for line in lines.values() for size in line})
    top_us, step = _scale(max(max(line.values()) for line in lines.values()))
    right, bottom = PANEL_W - RIGHT, PANEL_H - BOTTOM
    # Sizes that span decades stand on a logarithmic axis; few enough to see a straight line by do not.
    place: Callable[[float], float] = math.log10 if sizes[-1] > 100 else float
    low, high = place(sizes[0]), place(sizes[-1])

    def x_of(size: float) -> float:
        return LEFT + (place(size) - low) / (high - low) * (right - LEFT)

    def y_of(us: float) -> float:
        return bottom - us / top_us * (bottom - TOP)

    parts = [f'<text x="{LEFT}" y="{TOP - 14}" font-size="13" font-weight="bold">{escape(measure["title"])}</text>']
    for tick in range(0, top_us + 1, step):
        y = y_of(tick)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>')
    for size in sizes:
        parts.append(f'<text x="{x_of(size):.1f}" y="{bottom + 16}" text-anchor="middle">{_short(size, sizes)}</text>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{bottom + 34}" text-anchor="middle">{escape(measure["unit"])}</text>')
    ends = _apart({kind: y_of(line[max(line)]) for kind, line in lines.items()})
    for colour, (kind, line) in zip(COLOURS, lines.items()):
        points = " ".join(f"{x_of(size):.1f},{y_of(us):.1f}" for size, us in sorted(line.items()))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x_of(size):.1f}" cy="{y_of(us):.1f}" r="2.6" fill="{colour}"/>' for size, us in line.items()]
        parts.append(f'<text x="{right + 8}" y="{ends[kind] + 4:.1f}" fill="{colour}">{escape(kind)}</text>')
    return parts


def _scale(largest: float) -> tuple[int, int]:
    """The top of an axis and the step of its ticks."""
    step = next((step for step in STEPS if largest * 1.1 / step <= TICKS_MAX), STEPS[-1])
    return math.ceil(largest * 1.1 / step) * step, step


def _short(size: int, sizes: list[int]) -> str:
    """A number below the axis; of many close ones, none but those with room."""
    if sizes[-1] <= 100 and size * 16 <= sizes[-1] and size != sizes[0]:
        return ""
    return f"{size:,}"


def _apart(ends: dict[str, float]) -> dict[str, float]:
    """Heights of labels, no two of them over each other."""
    placed: dict[str, float] = {}
    last = -math.inf
    for kind, y in sorted(ends.items(), key=lambda one: one[1]):
        last = max(y, last + TEXT_H)
        placed[kind] = last
    return placed
