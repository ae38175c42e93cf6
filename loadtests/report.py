"""What was measured as tables, and held against the goals."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Mapping

from .parts import Goal
from .spread import markdown


def goals(parts: Mapping[str, ModuleType], results: Mapping[str, Any]) -> list[Goal]:
    """Every goal of the parts that were measured."""
    return [goal for name, part in parts.items() if name in results for goal in part.goals(results)]


def goals_table(found: list[Goal]) -> str:
    """Goal, measured, met or not."""
    rows = []
    for goal in found:
        rows.append([
            goal.name, f"{'≥' if goal.at_least else '≤'} {goal.bound:,g}{_unit(goal)}", f"{_figure(goal.measured)}{_unit(goal)}",
            "yes" if goal.met else "**no**",
        ])
    return markdown(["goal", "wanted", "measured", "met"], rows)


def _unit(goal: Goal) -> str:
    return f" {goal.unit}" if goal.unit == "×" else goal.unit


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def where(result: Mapping[str, Any]) -> str:
    """When and on what a part was measured."""
    machine, before, after = result["machine"], result["load_before"][0], result["load_after"][0]
    return (
        f"{result['date']} UTC, version {result['version']}, commit {result['commit'] or 'unknown'}; {machine['cores']} cores "
        f"({machine['cpu']}), Linux {machine['kernel']}, Python {machine['python']}; load average {before:.1f} before, {after:.1f} after; "
        f"{result['rounds']} rounds."
    )
