"""Catalogs as code: one file that says which features and plans there are.

    load_catalog(path) ─► CatalogFile ─► push.plan_push / push.apply

A file stands alone: what its plans and credit systems name must be in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

from .fields import Problem, Problems
from .model import Feature, Plan
from .sources import CatalogFileError, FileProblem, Source, read_sources
from .validate import check_schema, read_feature, read_plan

__all__ = ["CatalogFile", "CatalogFileError", "FileProblem", "load_catalog"]


@dataclass(frozen=True)
class CatalogFile:
    """A valid catalog file. `features` and `plans` are as they would be in an empty store."""

    path: Path
    features: tuple[Feature, ...]
    plans: tuple[Plan, ...]
    sources: tuple[Source, ...]

    def over(
        self, features: Mapping[str, Feature], plans: Mapping[str, Plan]
    ) -> tuple[tuple[Feature, ...], tuple[Plan, ...]]:
        """The file's features and plans as they would be over what is stored: a stored feature
        keeps its precision where the file names none. Raises CatalogFileError if they cannot be,
        say because the file names another precision."""
        return _resolve(self.sources, features, plans)

    def problem_of(self, kind: str, id_: str, problem: Problem) -> FileProblem:
        """A problem of one of the file's definitions, with its place."""
        for source in self.sources:
            if source.kind == kind and source.raw.get("id") == id_:
                return source.problem(problem.path, problem.message)
        return FileProblem(str(self.path), 0, f"{kind} {id_}", str(problem))


def load_catalog(path: Path | str) -> CatalogFile:
    """Reads and validates a catalog file: Python (`.py`), YAML (`.yaml`, `.yml`) or JSON.

    Raises CatalogFileError, which lists every problem with file, line and path."""
    path = Path(path)
    sources = tuple(read_sources(path))
    features, plans = _resolve(sources, {}, {})
    return CatalogFile(path, features, plans, sources)


def _resolve(
    sources: tuple[Source, ...], stored_features: Mapping[str, Feature], stored_plans: Mapping[str, Plan]
) -> tuple[tuple[Feature, ...], tuple[Plan, ...]]:
    wrong: list[FileProblem] = []
    features: dict[str, Feature] = {}
    plans: dict[str, Plan] = {}
    systems: list[tuple[Source, Feature]] = []
    seen: dict[tuple[str, str], Source] = {}

    def note(source: Source, problems: Problems) -> None:
        wrong.extend(source.problem(p.path, p.message) for p in problems)

    for source in sources:
        problems = Problems()
        own = source.raw.get("id") if isinstance(source.raw, dict) else None
        own = own if isinstance(own, str) else ""
        first = seen.setdefault((source.kind, own), source)
        if own and first is not source:
            problems.add("id", f"{own!r} is already defined at line {first.line_of('id')}")
        elif source.kind == "feature":
            feature = read_feature(source.raw, problems, base=stored_features.get(own), strict=True)
            if feature is not None:
                features[feature.id] = feature
                systems.append((source, feature))
        note(source, problems)
    for source, feature in systems:
        problems = Problems()
        check_schema(feature, features, problems, unknown_is_wrong=True)
        note(source, problems)
    if wrong:
        raise CatalogFileError(wrong)
    for source in sources:
        problems = Problems()
        if source.kind == "plan":
            own = source.raw.get("id") if isinstance(source.raw, dict) else ""
            base = stored_plans.get(own) if isinstance(own, str) else None
            plan = read_plan(source.raw, features, problems, base=base, strict=True)
            if plan is not None:
                plans[plan.id] = plan
        note(source, problems)
    if wrong:
        raise CatalogFileError(wrong)
    return tuple(features.values()), tuple(plans.values())
