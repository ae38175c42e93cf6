"""Puts what was measured into docs/: the newest results, the history, the pictures, and the tables of
performance.md, which stand between marks there.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any, Mapping

from . import plots, report
from .machine import DOCS

FOLDER = DOCS / "bench"
LATEST, HISTORY = FOLDER / "latest.json", FOLDER / "history.json"
PAGE = DOCS / "performance.md"
RAW = "windows"
"""What a result has for each window, which is not kept."""


def latest() -> dict[str, Any]:
    """The newest result of each part."""
    return dict(json.loads(LATEST.read_text())) if LATEST.exists() else {}


def runs() -> list[dict[str, Any]]:
    """What was measured of each version, from the first on."""
    return list(json.loads(HISTORY.read_text())) if HISTORY.exists() else []


def publish(parts: Mapping[str, ModuleType], measured: Mapping[str, Any]) -> None:
    """Adds what was measured to what was known, and shows all of it."""
    FOLDER.mkdir(exist_ok=True)
    results = {**latest(), **{name: {key: value for key, value in of.items() if key != RAW} for name, of in measured.items()}}
    results = {name: results[name] for name in parts if name in results}
    lines = (f"{json.dumps(name)}: {json.dumps(of)}" for name, of in results.items())
    LATEST.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    history = _recorded(parts, measured)
    HISTORY.write_text(json.dumps(history, indent=1) + "\n")
    _draw(results, history)
    PAGE.write_text(_filled(PAGE.read_text(), parts, results))


def _recorded(parts: Mapping[str, ModuleType], measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The history with this run in it. Parts measured of the same commit are one run."""
    history = runs()
    newest = list(measured.values())[-1]
    run = {name: newest[name] for name in ("version", "commit", "date", "machine", "load_before", "load_after")}
    goals = {goal.name: round(goal.measured, 3) for goal in report.goals(parts, measured)}
    if not goals:
        return history
    if history and history[-1]["commit"] == run["commit"]:
        goals = {**history.pop()["goals"], **goals}
    return [*history, {**run, "goals": goals}]


def _draw(results: Mapping[str, Any], history: list[dict[str, Any]]) -> None:
    pictures = {"history": plots.history(history)}
    if "http" in results:
        pictures["throughput"] = plots.throughput(results["http"])
    if "http" in results or "open" in results:
        pictures["latency"] = plots.latency(results.get("http"), results.get("open"))
    if "cost" in results:
        pictures["cost"] = plots.cost(results["cost"]["measures"])
    if "scale" in results:
        pictures["customers"] = plots.customers(results["scale"])
    for name, picture in pictures.items():
        Path(FOLDER / f"{name}.svg").write_text(picture)


def _filled(page: str, parts: Mapping[str, ModuleType], results: Mapping[str, Any]) -> str:
    """The page with every table between its marks renewed."""
    tables = {name: f"{report.where(of)}\n\n{parts[name].table(of)}" for name, of in results.items()}
    tables["goals"] = report.goals_table(report.goals(parts, results))
    for name, text in tables.items():
        begin, end = f"<!-- measured: {name} -->", "<!-- end -->"
        found = re.compile(f"{begin}.*?{end}", re.DOTALL)
        page = found.sub(lambda _, text=text, begin=begin: f"{begin}\n\n{text}\n\n{end}", page)  # type: ignore[misc]
    return page
