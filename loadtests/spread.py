"""Figures of several rounds: their median, and the range they came from."""

from __future__ import annotations

import statistics
from typing import Any, Iterable, Sequence


def spread(values: Iterable[float]) -> dict[str, float]:
    """{"median", "low", "high"}."""
    ordered = sorted(values)
    return {"median": _rounded(statistics.median(ordered)), "low": _rounded(ordered[0]), "high": _rounded(ordered[-1])}


def ratios(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """The spread of the rounds' own ratios: what disturbed a round disturbed both."""
    return spread(a / b for a, b in zip(above, below, strict=True))


def with_range(found: dict[str, float], digits: int = 2) -> str:
    """The median, and the range in brackets."""
    return f"{found['median']:,.{digits}f} ({found['low']:,.{digits}f}–{found['high']:,.{digits}f})"


def markdown(head: Sequence[str], rows: Iterable[Sequence[Any]], left: int = 1) -> str:
    """A table; all columns but the first `left` stand to the right."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * left + "--:|" * (len(head) - left)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
