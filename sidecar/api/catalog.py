"""Routes of the catalog: features, products (plans) and the organization. `rpc` has the RPC style.

What is posted is validated against SQL inside the transaction that stores it, so that a plan may
follow its features at once, through any process. The API version decides how a body is read and an
answer looks.
"""

from __future__ import annotations

from typing import Any, Callable

from sqlalchemy import Connection
from starlette.routing import Route

from ..billing.change import read_holdings
from ..billing.holdings import Holdings
from ..catalog import repository
from ..catalog.model import Feature, Plan
from ..errors import not_found
from ..store import customers
from . import catalog_changes as changes, fields
from .catalog_views import feature_json, product_json
from .catalog_views_v2 import feature_v2, plan_v2, scenario_of
from .endpoint import Call, Handler, endpoint

ORGANIZATION = {"id": "org_sidecar", "name": "sidecar", "slug": "sidecar"}


async def list_features(call: Call) -> dict[str, Any]:
    """Every feature, in the order of creation; archived ones with `include_archived`."""
    catalog = await call.ctx.catalog.refresh()
    archived = _flag(call, "include_archived")
    return {"list": [_shown(call, f) for f in catalog.features.values() if archived or not f.archived]}


async def create_feature(call: Call) -> dict[str, Any]:
    """A new feature; 409 `duplicate_feature_id` if there is one of this id."""
    return _shown(call, await _write(call, changes.create_feature, call.version, _named(call, "feature_id")))


async def get_feature(call: Call) -> dict[str, Any]:
    """One feature."""
    return _shown(call, await _feature(call))


async def update_feature(call: Call) -> dict[str, Any]:
    """Changes the fields that are given."""
    return _shown(call, await _write(
        call, changes.update_feature, call.version, call.path["feature_id"], _named(call, "feature_id")
    ))


async def delete_feature(call: Call) -> dict[str, Any]:
    """Removes a feature that nothing uses and no customer holds."""
    await _write(call, changes.delete_feature, call.path["feature_id"])
    return {"success": True}


async def feature_deletion_info(call: Call) -> dict[str, Any]:
    """How many plans use the feature, and one of them by name."""
    feature = await _feature(call)
    plans = [plan for plan in call.ctx.catalog.current.plans.values() if plan.names(feature.id)]
    return {"totalCount": len(plans), "productName": plans[0].name if plans else None}


async def list_products(call: Call) -> dict[str, Any]:
    """The newest version of every plan, in the order of creation; archived ones with
    `include_archived`, every version with `all_versions`. With a `customer_id`, each plan tells what
    attaching it would be."""
    asked = _asked(call)
    customer_id, entity_id = fields.optional_id(asked, "customer_id"), fields.optional_id(asked, "entity_id")
    archived, every = _flag(call, "include_archived"), _flag(call, "all_versions")
    catalog = await call.ctx.catalog.refresh()
    holdings = None if customer_id is None else await _holdings(call, customer_id)
    plans = catalog.plans_by_uid.values() if every else catalog.plans.values()
    return {"list": [
        _product(call, plan, None if holdings is None else scenario_of(plan, holdings, entity_id or ""))
        for plan in plans if archived or not plan.archived
    ]}


async def create_product(call: Call) -> dict[str, Any]:
    """A new plan; 400 `product_already_exists` if there is one of this id."""
    return _product(call, await _write(call, changes.create_plan, call.version, _named(call, "plan_id")))


async def get_product(call: Call) -> dict[str, Any]:
    """One plan: its newest version, or the one asked for by number."""
    plan = await _plan(call)
    version = fields.whole(_asked(call).get("version"), "version", plan.version, 1, 10**9)
    if version != plan.version:
        found = [p for p in call.ctx.catalog.current.plans_by_uid.values() if (p.id, p.version) == (plan.id, version)]
        if not found:
            raise not_found("product", f"{plan.id} version {version}")
        plan = found[0]
    return _product(call, plan)


async def update_product(call: Call) -> dict[str, Any]:
    """Changes the fields that are given; `items` replaces all items. Customers who hold the plan
    keep the version they have."""
    return _product(call, await _write(
        call, changes.update_plan, call.version, call.path["product_id"], _named(call, "plan_id")
    ))


async def delete_product(call: Call) -> dict[str, Any]:
    """Removes the newest version of a plan (with `all_versions` all) that no customer ever had."""
    await _write(call, changes.delete_plan, call.path["product_id"], _flag(call, "all_versions"))
    return {"success": True}


async def product_has_customers(call: Call) -> dict[str, Any]:
    """Whether storing the body's plan over this one would make a new version of it."""
    fields.refuse_old(call.version)
    now_ms = await call.ctx.clock.now_ms()
    return await call.ctx.store.read(
        changes.has_customers, now_ms, call.version, call.path["product_id"], _named(call, "plan_id")
    )


async def product_deletion_info(call: Call) -> dict[str, Any]:
    """How many customers have or had the plan, and one of them by name."""
    plan = await _plan(call)
    total, name = await call.ctx.store.read(repository.plan_holders, plan.id)
    return {"totalCount": total, "customerName": name}


async def organization(call: Call) -> dict[str, Any]:
    """Whose catalog this is: a sidecar has one organization."""
    return {**ORGANIZATION, "env": call.env, "default_currency": call.ctx.settings.currency}


# --- helpers


async def _write(call: Call, change: Callable[..., Any], *args: Any) -> Any:
    fields.refuse_old(call.version)
    result = await call.ctx.store.write(change, await call.ctx.clock.now_ms(), *args)
    await call.ctx.catalog.refresh()
    return result


async def _feature(call: Call) -> Feature:
    fields.refuse_old(call.version)
    catalog = await call.ctx.catalog.refresh()
    feature = catalog.features.get(call.path["feature_id"])
    if feature is None:
        raise not_found("feature", call.path["feature_id"])
    return feature


async def _plan(call: Call) -> Plan:
    fields.refuse_old(call.version)
    catalog = await call.ctx.catalog.refresh()
    plan = catalog.plans.get(call.path["product_id"])
    if plan is None:
        raise not_found("product", call.path["product_id"])
    return plan


async def _holdings(call: Call, customer_id: str) -> Holdings:
    """What a customer holds; nothing, for one that does not exist yet."""
    catalog = call.ctx.catalog.current

    def read(conn: Connection) -> Holdings:
        customer = customers.by_id(conn, customer_id)
        return Holdings() if customer is None else read_holdings(conn, catalog, customer.cid)

    return await call.ctx.store.read(read)


def _shown(call: Call, feature: Feature) -> dict[str, Any]:
    return feature_json(feature) if call.version < (2, 0) else feature_v2(feature)


def _product(call: Call, plan: Plan, scenario: str | None = None) -> dict[str, Any]:
    features, shared = call.ctx.catalog.current.features, {"env": call.env, "currency": call.ctx.settings.currency}
    if call.version < (2, 0):
        return product_json(plan, features, scenario=scenario, **shared)
    return plan_v2(plan, features, version=call.version, scenario=scenario, **shared)


def _named(call: Call, alias: str) -> dict[str, Any]:
    """The body, with the id that newer clients call `alias`."""
    body = call.fields
    return {**body, "id": body[alias]} if body.get("id") is None and alias in body else body


def _asked(call: Call) -> dict[str, Any]:
    """The fields of a call that only reads, from the query or the body."""
    return {**dict(call.query), **call.fields}


def _flag(call: Call, name: str) -> bool:
    fields.refuse_old(call.version)
    given = _asked(call).get(name)
    if isinstance(given, str):
        return given.lower() in ("true", "1")
    return fields.flag({name: given}, name) or False


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
