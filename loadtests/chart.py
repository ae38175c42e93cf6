"""Line charts as SVG, in panels, two in a row. No library is needed for that."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Callable, Mapping, Sequence
from xml.sax.saxutils import escape

PANEL_W, PANEL_H = 510, 290
LEFT, RIGHT, TOP, BOTTOM = 58, 178, 44, 46
COLOURS = ("#1f6fb4", "#c4501b", "#2b8a4b", "#7a4fa3", "#8a6d1d", "#c03a7c", "#4d5a66", "#1597a5")
TEXT_H = 13
TICKS_MAX = 6

Line = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One chart. `x_names` are the places on its axis that are named, in order; those of a logarithmic
    axis are above 0. `goals` are heights with a name, drawn dashed."""

    title: str
    x_title: str
    lines: Mapping[str, Line]
    x_names: Mapping[float, str]
    log_x: bool = False
    log_y: bool = False
    dots: bool = True
    goals: Mapping[str, float] = field(default_factory=dict)


def draw(title: str, panels: Sequence[Panel]) -> str:
    """The picture of these panels."""
    across = min(2, len(panels))
    width, height = across * PANEL_W + 20, math.ceil(len(panels) / 2) * PANEL_H + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11" fill="#333">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="16" y="26" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate({10 + number % 2 * PANEL_W},{36 + number // 2 * PANEL_H})">')
        parts += _panel(panel)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel) -> list[str]:
    right, bottom = PANEL_W - RIGHT, PANEL_H - BOTTOM
    xs = [*panel.x_names, *(x for line in panel.lines.values() for x, _ in line)]
    ys = [*panel.goals.values(), *(y for line in panel.lines.values() for _, y in line)]
    ticks = _decades(min(ys), max(ys)) if panel.log_y else _steps(max(ys))
    x_of = _axis(min(xs), max(xs), LEFT, right, panel.log_x)
    y_of = _axis(ticks[0], ticks[-1], bottom, TOP, panel.log_y)

    parts = [f'<text x="{LEFT}" y="{TOP - 14}" font-size="13" font-weight="bold">{escape(panel.title)}</text>']
    for tick in ticks:
        parts.append(f'<path d="M{LEFT} {y_of(tick):.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y_of(tick) + 4:.1f}" text-anchor="end">{tick:,g}</text>')
    for x, name in panel.x_names.items():
        parts.append(f'<text x="{x_of(x):.1f}" y="{bottom + 16}" text-anchor="middle">{escape(name)}</text>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{bottom + 34}" text-anchor="middle">{escape(panel.x_title)}</text>')
    for height in panel.goals.values():
        parts.append(f'<path d="M{LEFT} {y_of(height):.1f}H{right}" stroke="#888" stroke-dasharray="5 4"/>')
    ends = _apart(
        {name: y_of(line[-1][1]) for name, line in panel.lines.items()} | {name: y_of(y) for name, y in panel.goals.items()}, bottom
    )
    for colour, (name, line) in zip(COLOURS, panel.lines.items()):
        points = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in line)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if panel.dots:
            parts += [f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="2.6" fill="{colour}"/>' for x, y in line]
        parts.append(f'<text x="{right + 8}" y="{ends[name] + 4:.1f}" fill="{colour}">{escape(name)}</text>')
    parts += [f'<text x="{right + 8}" y="{ends[name] + 4:.1f}" fill="#666">{escape(name)}</text>' for name in panel.goals]
    return parts


def _axis(low: float, high: float, start: float, end: float, log: bool) -> Callable[[float], float]:
    """From a value to its place between `start` and `end`."""
    place: Callable[[float], float] = math.log10 if log else float
    span = place(high) - place(low)
    return lambda value: start + ((place(value) - place(low)) / span if span else 0.5) * (end - start)


def _steps(largest: float) -> list[float]:
    """Ticks from 0 to a little above the largest."""
    largest = max(largest * 1.1, 1e-9)
    ten = 10 ** math.floor(math.log10(largest / TICKS_MAX))
    step = next(ten * factor for factor in (1, 2, 5, 10) if largest / (ten * factor) <= TICKS_MAX)
    return [round(step * number, 10) for number in range(math.ceil(largest / step) + 1)]


def _decades(least: float, largest: float) -> list[float]:
    """Ticks at 1, 2 and 5 of each power of ten around these; at the powers alone if that were many."""
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(largest * 1.01)) + 1)
    factors = (1, 2, 5) if len(powers) <= 3 else (1,)
    every = [float(f"{factor * 10.0**power:.3g}") for power in powers for factor in factors]
    first = max(number for number, tick in enumerate(every) if tick <= least)
    last = min(number for number, tick in enumerate(every) if tick >= largest)
    return every[first : max(last, first + 1) + 1]


def _apart(ends: dict[str, float], lowest: float) -> dict[str, float]:
    """Heights of labels, no two of them over each other, nor below the axis where there is room above."""
    names = sorted(ends, key=lambda name: ends[name])
    placed: dict[str, float] = {}
    last = -math.inf
    for name in names:
        placed[name] = last = max(ends[name], last + TEXT_H)
    highest = lowest
    for name in reversed(names):
        placed[name] = highest = min(placed[name], highest)
        highest -= TEXT_H
    return placed
