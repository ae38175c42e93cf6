"""Routes of the catalog at API version 1.2: features, products (plans) and the organization.

What is posted is validated against SQL inside the transaction that stores it, so that a plan may
follow its features at once, through any process.
"""

from __future__ import annotations

from typing import Any, Callable

from sqlalchemy import Connection
from starlette.routing import Route

from ..catalog import repository
from ..catalog.change import Editor
from ..catalog.fields import Problems
from ..catalog.model import Feature, Plan
from ..catalog.validate import read_feature, read_plan
from ..errors import ApiError, NotSupported, not_found
from .catalog_views import feature_json, product_json
from .endpoint import Call, Handler, endpoint
from .fields import require_v1

ORGANIZATION = {"id": "org_sidecar", "name": "sidecar", "slug": "sidecar"}


async def list_features(call: Call) -> dict[str, Any]:
    """Every feature, in the order of creation; archived ones with `include_archived`."""
    catalog = await call.ctx.catalog.refresh()
    archived = _query_flag(call, "include_archived")
    return {"list": [feature_json(f) for f in catalog.features.values() if archived or not f.archived]}


async def create_feature(call: Call) -> dict[str, Any]:
    """A new feature; 409 `duplicate_feature_id` if there is one of this id."""
    return feature_json(await _write(call, _create_feature, call.fields))


async def get_feature(call: Call) -> dict[str, Any]:
    """One feature."""
    return feature_json(await _feature(call))


async def update_feature(call: Call) -> dict[str, Any]:
    """Changes the fields that are given."""
    return feature_json(await _write(call, _update_feature, call.path["feature_id"], call.fields))


async def delete_feature(call: Call) -> dict[str, Any]:
    """Removes a feature that nothing uses and no customer holds."""
    await _write(call, _delete_feature, call.path["feature_id"])
    return {"success": True}


async def feature_deletion_info(call: Call) -> dict[str, Any]:
    """How many plans use the feature, and one of them by name."""
    feature = await _feature(call)
    plans = [
        plan for plan in call.ctx.catalog.current.plans.values()
        if any(feature.id in (item.feature_id, item.entity_feature_id) for item in plan.items)
    ]
    return {"totalCount": len(plans), "productName": plans[0].name if plans else None}


async def list_products(call: Call) -> dict[str, Any]:
    """The newest version of every plan, in the order of creation; archived ones with
    `include_archived`."""
    catalog = await call.ctx.catalog.refresh()
    archived = _query_flag(call, "include_archived")
    return {"list": [_product(call, plan, catalog.features) for plan in catalog.plans.values() if archived or not plan.archived]}


async def create_product(call: Call) -> dict[str, Any]:
    """A new plan; 400 `product_already_exists` if there is one of this id."""
    plan = await _write(call, _create_plan, call.fields)
    return _product(call, plan, call.ctx.catalog.current.features)


async def get_product(call: Call) -> dict[str, Any]:
    """The newest version of one plan."""
    return _product(call, await _plan(call), call.ctx.catalog.current.features)


async def update_product(call: Call) -> dict[str, Any]:
    """Changes the fields that are given; `items` replaces all items. Customers who hold the plan
    keep the version they have."""
    plan = await _write(call, _update_plan, call.path["product_id"], call.fields)
    return _product(call, plan, call.ctx.catalog.current.features)


async def delete_product(call: Call) -> dict[str, Any]:
    """Removes the newest version of a plan (with `all_versions` all) that no customer ever had."""
    await _write(call, _delete_plan, call.path["product_id"], _query_flag(call, "all_versions"))
    return {"success": True}


async def product_has_customers(call: Call) -> dict[str, Any]:
    """Whether storing the body's plan over this one would make a new version of it."""
    require_v1(call.version, "the catalog")
    now_ms = await call.ctx.clock.now_ms()
    return await call.ctx.store.read(_has_customers, now_ms, call.path["product_id"], call.fields)


async def product_deletion_info(call: Call) -> dict[str, Any]:
    """How many customers have or had the plan, and one of them by name."""
    plan = await _plan(call)
    total, name = await call.ctx.store.read(repository.plan_holders, plan.id)
    return {"totalCount": total, "customerName": name}


async def organization(call: Call) -> dict[str, Any]:
    """Whose catalog this is: a sidecar has one organization."""
    return {**ORGANIZATION, "env": call.env, "default_currency": call.ctx.settings.currency}


# --- transactions


def _create_feature(conn: Connection, now_ms: int, raw: dict[str, Any]) -> Feature:
    editor = Editor(conn, now_ms)
    if isinstance(raw.get("id"), str) and raw["id"] in editor.features:
        raise ApiError(409, "duplicate_feature_id", f"id: feature {raw['id']!r} already exists; POST /v1/features/{raw['id']} changes it")
    return _put_feature(editor, raw, None)


def _update_feature(conn: Connection, now_ms: int, feature_id: str, raw: dict[str, Any]) -> Feature:
    editor = Editor(conn, now_ms)
    if feature_id not in editor.features:
        raise not_found("feature", feature_id)
    _same_id(raw, feature_id)
    return _put_feature(editor, raw, editor.features[feature_id])


def _put_feature(editor: Editor, raw: dict[str, Any], base: Feature | None) -> Feature:
    problems = Problems()
    feature = read_feature(raw, problems, base=base, keep=True)
    if feature is not None:
        # a credit system may come before its members when a client sends all at once; a member
        # takes part from the moment it exists
        editor.check_feature(feature, problems, unknown_is_wrong=False)
    problems.raise_for_caller()
    assert feature is not None
    stored = editor.put_feature(feature)
    editor.finish()
    return stored


def _delete_feature(conn: Connection, now_ms: int, feature_id: str) -> None:
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


def _create_plan(conn: Connection, now_ms: int, raw: dict[str, Any]) -> Plan:
    editor = Editor(conn, now_ms)
    if isinstance(raw.get("id"), str) and raw["id"] in editor.plans:
        raise ApiError(400, "product_already_exists", f"id: product {raw['id']!r} already exists; POST /v1/products/{raw['id']} changes it")
    return _put_plan(editor, _read_plan(editor, raw, None))


def _update_plan(conn: Connection, now_ms: int, plan_id: str, raw: dict[str, Any]) -> Plan:
    editor = Editor(conn, now_ms)
    return _put_plan(editor, _read_plan(editor, raw, _known_plan(editor, plan_id)))


def _put_plan(editor: Editor, plan: Plan) -> Plan:
    stored = editor.put_plan(plan)
    editor.finish()
    return stored


def _read_plan(editor: Editor, raw: dict[str, Any], base: Plan | None) -> Plan:
    if base is not None:
        _same_id(raw, base.id)
    problems = Problems()
    plan = read_plan(raw, editor.features, problems, base=base, keep=True)
    problems.raise_for_caller()
    assert plan is not None
    return plan


def _has_customers(conn: Connection, now_ms: int, plan_id: str, raw: dict[str, Any]) -> dict[str, Any]:
    editor = Editor(conn, now_ms, writing=False)
    old = _known_plan(editor, plan_id)
    new = _read_plan(editor, raw, old)
    return {
        "current_version": old.version,
        "will_version": editor.will_version(old, new),
        "archived": old.archived,
    }


def _delete_plan(conn: Connection, now_ms: int, plan_id: str, all_versions: bool) -> None:
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


# --- helpers


async def _write(call: Call, change: Callable[..., Any], *args: Any) -> Any:
    require_v1(call.version, "the catalog")
    result = await call.ctx.store.write(change, await call.ctx.clock.now_ms(), *args)
    await call.ctx.catalog.refresh()
    return result


async def _feature(call: Call) -> Feature:
    require_v1(call.version, "the catalog")
    catalog = await call.ctx.catalog.refresh()
    feature = catalog.features.get(call.path["feature_id"])
    if feature is None:
        raise not_found("feature", call.path["feature_id"])
    return feature


async def _plan(call: Call) -> Plan:
    require_v1(call.version, "the catalog")
    catalog = await call.ctx.catalog.refresh()
    plan = catalog.plans.get(call.path["product_id"])
    if plan is None:
        raise not_found("product", call.path["product_id"])
    return plan


def _product(call: Call, plan: Plan, features: Any) -> dict[str, Any]:
    return product_json(plan, features, env=call.env, currency=call.ctx.settings.currency)


def _query_flag(call: Call, name: str) -> bool:
    require_v1(call.version, "the catalog")
    return str(call.query.get(name, "")).lower() in ("true", "1")


def _route(path: str, method: str, handler: Handler) -> Route:
    return Route(path, endpoint(handler), methods=[method])


routes: list[Route] = [
    _route("/v1/features", "GET", list_features),
    _route("/v1/features", "POST", create_feature),
    _route("/v1/features/{feature_id}", "GET", get_feature),
    _route("/v1/features/{feature_id}", "POST", update_feature),
    _route("/v1/features/{feature_id}", "DELETE", delete_feature),
    _route("/v1/features/{feature_id}/deletion_info", "GET", feature_deletion_info),
    _route("/v1/products_beta", "GET", list_products),
    *(
        _route(f"/v1/{name}{path}", method, handler)
        for name in ("products", "plans")
        for path, method, handler in (
            ("", "GET", list_products),
            ("", "POST", create_product),
            ("/{product_id}", "GET", get_product),
            ("/{product_id}", "POST", update_product),
            ("/{product_id}", "PATCH", update_product),
            ("/{product_id}", "DELETE", delete_product),
            ("/{product_id}/has_customers", "POST", product_has_customers),
            ("/{product_id}/deletion_info", "GET", product_deletion_info),
        )
    ),
    _route("/v1/organization", "GET", organization),
    _route("/v1/organization/me", "GET", organization),
]
