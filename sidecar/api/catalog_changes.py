"""Changes of the catalog as bodies ask for them, each inside the SQL transaction that stores it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from ..catalog import repository
from ..catalog.change import Editor
from ..catalog.fields import Problems
from ..catalog.model import Feature, Plan
from ..errors import ApiError, NotSupported, not_found
from .catalog_bodies import Version, feature_of, plan_of


def create_feature(conn: Connection, now_ms: int, version: Version, raw: dict[str, Any]) -> Feature:
    """Stores a new feature. Raises ApiError 409 `duplicate_feature_id`, and 400."""
    editor = Editor(conn, now_ms)
    if isinstance(raw.get("id"), str) and raw["id"] in editor.features:
        raise ApiError(409, "duplicate_feature_id", f"id: feature {raw['id']!r} already exists; POST /v1/features/{raw['id']} changes it")
    return _put_feature(editor, version, raw, None)


def update_feature(conn: Connection, now_ms: int, version: Version, feature_id: str, raw: dict[str, Any]) -> Feature:
    """Changes what is given of a feature. Raises ApiError 404, 400."""
    editor = Editor(conn, now_ms)
    if feature_id not in editor.features:
        raise not_found("feature", feature_id)
    _same_id(raw, feature_id)
    return _put_feature(editor, version, raw, editor.features[feature_id])


def _put_feature(editor: Editor, version: Version, raw: dict[str, Any], base: Feature | None) -> Feature:
    problems = Problems()
    feature = feature_of(raw, version, problems, base)
    if feature is not None:
        # a credit system may come before its members when a client sends all at once; a member
        # takes part from the moment it exists
        editor.check_feature(feature, problems, unknown_is_wrong=False)
    problems.raise_for_caller()
    assert feature is not None
    stored = editor.put_feature(feature)
    editor.finish()
    return stored


def delete_feature(conn: Connection, now_ms: int, feature_id: str) -> None:
    """Removes a feature that nothing uses. Raises ApiError 404, and 400 for one in use."""
    editor = Editor(conn, now_ms)
    if feature_id not in editor.features:
        raise not_found("feature", feature_id)
    users = editor.users_of(feature_id)
    if not users and repository.feature_is_held(conn, feature_id):
        users = ["customers"]
    if users:
        shown = ", ".join(users[:5])
        raise ApiError(400, "invalid_request", f"feature {feature_id!r} is used by {shown}; archive it instead: POST {{\"archived\": true}}")
    editor.remove_feature(feature_id)
    editor.finish()


def create_plan(conn: Connection, now_ms: int, version: Version, raw: dict[str, Any]) -> Plan:
    """Stores a new plan. Raises ApiError 400, `product_already_exists` for a taken id."""
    editor = Editor(conn, now_ms)
    if isinstance(raw.get("id"), str) and raw["id"] in editor.plans:
        raise ApiError(400, "product_already_exists", f"id: product {raw['id']!r} already exists; POST /v1/products/{raw['id']} changes it")
    return _put_plan(editor, _read_plan(editor, version, raw, None))


def update_plan(conn: Connection, now_ms: int, version: Version, plan_id: str, raw: dict[str, Any]) -> Plan:
    """Changes what is given of a plan. Raises ApiError 404, 400."""
    editor = Editor(conn, now_ms)
    return _put_plan(editor, _read_plan(editor, version, raw, _known_plan(editor, plan_id)))


def _put_plan(editor: Editor, plan: Plan) -> Plan:
    stored = editor.put_plan(plan)
    editor.finish()
    return stored


def _read_plan(editor: Editor, version: Version, raw: dict[str, Any], base: Plan | None) -> Plan:
    if base is not None:
        _same_id(raw, base.id)
    problems = Problems()
    plan = plan_of(raw, version, editor.features, problems, base)
    problems.raise_for_caller()
    assert plan is not None
    return plan


def has_customers(conn: Connection, now_ms: int, version: Version, plan_id: str, raw: dict[str, Any]) -> dict[str, Any]:
    """Whether storing a plan's body would make a new version. Raises ApiError 404, 400."""
    editor = Editor(conn, now_ms, writing=False)
    old = _known_plan(editor, plan_id)
    new = _read_plan(editor, version, raw, old)
    return {
        "current_version": old.version,
        "will_version": editor.will_version(old, new),
        "archived": old.archived,
    }


def delete_plan(conn: Connection, now_ms: int, plan_id: str, all_versions: bool) -> None:
    """Removes a plan that nobody ever had. Raises ApiError 404, and 400 for one with customers."""
    editor = Editor(conn, now_ms)
    plan = _known_plan(editor, plan_id)
    total, _ = repository.plan_holders(conn, plan_id, None if all_versions else plan.uid)
    if total or repository.plan_is_held(conn, plan.uid, now_ms):
        raise ApiError(400, "invalid_request", f"product {plan_id!r} has customers; archive it instead: POST {{\"archived\": true}}")
    editor.remove_plan(plan, all_versions)
    editor.finish()


def _known_plan(editor: Editor, plan_id: str) -> Plan:
    if plan_id not in editor.plans:
        raise not_found("product", plan_id)
    return editor.plans[plan_id]


def _same_id(raw: dict[str, Any], known: str) -> None:
    if raw.get("id") not in (None, known):
        raise NotSupported("id", "cannot be changed; make a new one and archive this one")
