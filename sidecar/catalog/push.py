"""`sidecar push`: the difference between a catalog file and SQL, and its application in one write
transaction. Pushing the same file again changes nothing, not even the catalog's version.
"""

from __future__ import annotations

from sqlalchemy import Connection

from ..clock import real_now_ms
from ..store.db import Store
from .change import Editor
from .diff import Diff, compare
from .fields import Problems
from .files import CatalogFile, CatalogFileError, FileProblem
from .model import Feature, Plan
from .validate import warnings


class CatalogMovedOn(Exception):
    """The catalog was changed by someone else after the difference was shown."""


def plan_push(store: Store, file: CatalogFile, now_ms: int | None = None) -> Diff:
    """What pushing the file would change. Raises CatalogFileError if it cannot be pushed over
    what is stored."""
    return store.read_sync(_plan, file, real_now_ms() if now_ms is None else now_ms)


def apply(store: Store, file: CatalogFile, shown: Diff | None = None, now_ms: int | None = None) -> Diff:
    """Makes the store's catalog say what the file says, and returns what changed: all of it or,
    on any error, nothing. With `shown`, only if the difference is still that one.

    Raises CatalogFileError (file and store do not go together) and CatalogMovedOn."""
    return store.write_sync(_apply, file, shown, real_now_ms() if now_ms is None else now_ms)


def _plan(conn: Connection, file: CatalogFile, now_ms: int) -> Diff:
    return _compared(Editor(conn, now_ms, writing=False), file)[2]


def _apply(conn: Connection, file: CatalogFile, shown: Diff | None, now_ms: int) -> Diff:
    editor = Editor(conn, now_ms)
    features, plans, diff = _compared(editor, file)
    if shown is not None and shown != diff:
        raise CatalogMovedOn("the catalog was changed in the meantime; look at the difference again")
    for feature in features:
        editor.put_feature(feature)
    for plan in plans:
        editor.put_plan(plan)
    editor.finish()
    return diff


def _compared(editor: Editor, file: CatalogFile) -> tuple[tuple[Feature, ...], tuple[Plan, ...], Diff]:
    """The file's features and plans over the stored ones, and the difference."""
    features, plans = file.over(editor.features, editor.plans)
    wrong: list[FileProblem] = []
    for feature in features:
        problems = Problems()
        editor.check_feature(feature, problems, unknown_is_wrong=False, replaced={plan.id for plan in plans})
        wrong += [file.problem_of("feature", feature.id, problem) for problem in problems]
    if wrong:
        raise CatalogFileError(wrong)
    all_features = {**editor.features, **{feature.id: feature for feature in features}}
    all_plans = {**editor.plans, **{plan.id: plan for plan in plans}}
    return features, plans, compare(
        features, plans, editor.features, editor.plans, editor.will_version,
        warnings(all_features.values(), all_plans.values()),
    )
