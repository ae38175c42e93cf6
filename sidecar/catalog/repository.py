"""Features and plans in SQL, as functions of a connection. Every change first takes the catalog's
one row lock, so that changes happen one after another, and ends by raising `catalog_version`,
which tells every process to read the catalog again.

Nothing is validated here.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, and_, delete, func, insert, null, select, true, update

from ..store import settings_kv
from ..store import tables as t
from .controls import Controls
from .model import Feature, Item, Plan

LAST_UID_KEY = "catalog_plan_uid"
"""The highest plan uid ever given: a deleted plan's uid is not given again."""
LAST_CREATED_KEY = "catalog_created_at"
_VERSIONED = ("items", "group", "is_add_on", "free_trial", "controls")
"""A change of these reaches what holders have, so holders keep the old version."""


class CatalogMoved(Exception):
    """The catalog is no longer at the version a decision was made on: decide again."""


def version(conn: Connection) -> int:
    """The catalog's version: 0 before the first change, then growing."""
    return settings_kv.catalog_version(conn)


def confirm_version(conn: Connection, expected: int) -> None:
    """Holds the catalog at `expected` until this transaction ends; what grants a plan calls this
    first, so that no plan is edited under the grant. Raises CatalogMoved."""
    row = select(t.settings.c.value).where(t.settings.c.key == settings_kv.CATALOG_VERSION)
    if int(conn.execute(row.with_for_update(read=True)).scalar() or 0) != expected:
        raise CatalogMoved(f"the catalog is no longer at version {expected}")


def begin_change(conn: Connection) -> None:
    """Waits for other changes of the catalog to end and keeps new ones out until this
    transaction does."""
    settings_kv.put_if_absent(conn, settings_kv.CATALOG_VERSION, 0)
    row = select(t.settings.c.value).where(t.settings.c.key == settings_kv.CATALOG_VERSION)
    conn.execute(row.with_for_update()).all()


def end_change(conn: Connection) -> int:
    """Raises the catalog's version by one and returns it."""
    return settings_kv.bump_catalog_version(conn)


# --- features


def features(conn: Connection) -> list[Feature]:
    """Every feature, in the order of creation."""
    rows = conn.execute(select(t.features).order_by(t.features.c.created_at, t.features.c.id))
    return [_feature(row._mapping) for row in rows]


def insert_feature(conn: Connection, feature: Feature, now_ms: int) -> Feature:
    """Stores a new feature and returns it with its time of creation."""
    feature = replace(feature, created_at=_creation_time(conn, now_ms))
    conn.execute(insert(t.features).values(_feature_row(feature)))
    return feature


def update_feature(conn: Connection, feature: Feature) -> None:
    """Replaces the feature of this id, but not its time of creation."""
    row = _feature_row(feature)
    del row["created_at"]
    conn.execute(update(t.features).where(t.features.c.id == feature.id).values(row))


def delete_feature(conn: Connection, feature_id: str) -> None:
    """Removes a feature; `feature_is_held` and the plans tell whether that is safe."""
    conn.execute(delete(t.features).where(t.features.c.id == feature_id))


def feature_is_held(conn: Connection, feature_id: str) -> bool:
    """Whether any customer has a bucket of this feature, an entity of it, or a cap on it."""
    bucket = select(t.buckets.c.no).where(t.buckets.c.feature_id == feature_id, t.buckets.c.removed_at.is_(None))
    entity = select(t.entities.c.uid).where(t.entities.c.feature_id == feature_id)
    cap = select(t.caps.c.cid).where(t.caps.c.feature_id == feature_id)
    return any(conn.execute(query.limit(1)).first() for query in (bucket, entity, cap))


# --- plans


def plans(conn: Connection, plan_id: str | None = None) -> list[Plan]:
    """Every version of every plan, or of one, in the order of creation."""
    query = select(t.plans).order_by(t.plans.c.created_at, t.plans.c.id, t.plans.c.version)
    if plan_id is not None:
        query = query.where(t.plans.c.id == plan_id)
    return [_plan(row._mapping) for row in conn.execute(query)]


def latest_plan(conn: Connection, plan_id: str) -> Plan | None:
    """The newest version of a plan, or None if there is none of this id."""
    row = conn.execute(
        select(t.plans).where(t.plans.c.id == plan_id).order_by(t.plans.c.version.desc()).limit(1)
    ).first()
    return _plan(row._mapping) if row else None


def insert_plan(conn: Connection, plan: Plan, now_ms: int, version: int = 1) -> Plan:
    """Stores a plan as a new row and returns it with its uid and time of creation."""
    top = conn.execute(select(func.max(t.plans.c.uid))).scalar() or 0
    uid = _next(conn, LAST_UID_KEY, top + 1)
    plan = replace(plan, uid=uid, version=version, created_at=_creation_time(conn, now_ms))
    conn.execute(insert(t.plans).values(_plan_row(plan)))
    return plan


def will_version(conn: Connection, old: Plan, new: Plan, now_ms: int) -> bool:
    """Whether storing `new` in place of `old` makes a new version: it changes what holders have,
    and there are holders."""
    changes = any(getattr(old, name) != getattr(new, name) for name in _VERSIONED)
    return changes and plan_is_held(conn, old.uid, now_ms)


def update_plan(conn: Connection, old: Plan, new: Plan, now_ms: int) -> Plan:
    """Stores `new` as what the plan of `old` is from now on: in place, or as a new version if
    customers hold the old one. Returns it as stored."""
    if will_version(conn, old, new, now_ms):
        return insert_plan(conn, new, now_ms, old.version + 1)
    new = replace(new, uid=old.uid, version=old.version, created_at=old.created_at)
    conn.execute(update(t.plans).where(t.plans.c.uid == old.uid).values(_plan_row(new)))
    return new


def delete_plan(conn: Connection, plan_id: str, version: int | None = None) -> None:
    """Removes one version of a plan, or all of them."""
    query = delete(t.plans).where(t.plans.c.id == plan_id)
    conn.execute(query if version is None else query.where(t.plans.c.version == version))


def plan_is_held(conn: Connection, uid: int, now_ms: int) -> bool:
    """Whether a customer has this version now or at a date set, or is about to pay for it."""
    held = select(t.customer_plans.c.uid).where(
        t.customer_plans.c.plan_uid == uid, t.customer_plans.c.status != "expired"
    )
    if conn.execute(held.limit(1)).first():
        return True
    open_checkouts = select(t.checkouts.c.request).where(
        t.checkouts.c.status == "open", t.checkouts.c.expires_at > now_ms
    )
    return any(uid in _plan_uids(request) for request in conn.execute(open_checkouts).scalars())


def plan_holders(conn: Connection, plan_id: str, uid: int | None = None) -> tuple[int, str | None]:
    """How many customers have or had any version of this plan (or the version `uid`), and the
    name (or id) of one of them."""
    version = true() if uid is None else t.customer_plans.c.plan_uid == uid
    of_plan = and_(t.customer_plans.c.plan_id == plan_id, version)
    total = conn.execute(select(func.count(func.distinct(t.customer_plans.c.cid))).where(of_plan)).scalar() or 0
    first = conn.execute(
        select(t.customers.c.name, t.customers.c.id)
        .join(t.customer_plans, t.customer_plans.c.cid == t.customers.c.cid).where(of_plan).limit(1)
    ).first()
    return total, (first.name or first.id) if first else None


# --- rows


def _feature_row(feature: Feature) -> dict[str, Any]:
    singular_plural = feature.display
    return {
        "id": feature.id,
        "name": feature.name,
        "type": feature.type,
        "precision": feature.precision,
        "display": {"singular": singular_plural[0], "plural": singular_plural[1]} if singular_plural else None,
        "credit_schema": [{"metered_feature_id": m, "credit_cost": str(cost)} for m, cost in feature.credit_schema],
        "event_names": list(feature.event_names),
        "archived": feature.archived,
        "created_at": feature.created_at,
    }


def _feature(row: Any) -> Feature:
    display, schema, events = row["display"], row["credit_schema"], row["event_names"]
    return Feature(
        id=row["id"],
        name=row["name"],
        type=row["type"],
        precision=row["precision"],
        display=(display["singular"], display["plural"]) if display else None,
        credit_schema=tuple((m["metered_feature_id"], Decimal(m["credit_cost"])) for m in schema or ()),
        event_names=tuple(events or ()),
        archived=bool(row["archived"]),
        created_at=row["created_at"],
    )


def _plan_row(plan: Plan) -> dict[str, Any]:
    return {
        "uid": plan.uid,
        "id": plan.id,
        "version": plan.version,
        "name": plan.name,
        "description": plan.description,
        "group_id": plan.group,
        "is_default": plan.is_default,
        "is_add_on": plan.is_add_on,
        "archived": plan.archived,
        "items": [item.to_json() for item in plan.items],
        "free_trial": plan.free_trial,
        "billing_controls": plan.controls.to_json() or null(),
        "created_at": plan.created_at,
    }


def _plan(row: Any) -> Plan:
    return Plan(
        uid=row["uid"],
        id=row["id"],
        version=row["version"],
        name=row["name"],
        group=row["group_id"],
        is_default=bool(row["is_default"]),
        is_add_on=bool(row["is_add_on"]),
        archived=bool(row["archived"]),
        items=tuple(Item.from_json(item) for item in row["items"]),
        created_at=row["created_at"],
        description=row["description"],
        controls=Controls.from_json(row["billing_controls"]),
    )


def _plan_uids(request: Any) -> list[int]:
    request = request or {}
    return [request.get("plan_uid"), *(request.get("plan_uids") or [])]


def _next(conn: Connection, key: str, least: int) -> int:
    value = max(settings_kv.get_int(conn, key) + 1, least)
    settings_kv.put(conn, key, value)
    return value


def _creation_time(conn: Connection, now_ms: int) -> int:
    """Now, or a little later: no two things are created at one time, so their order is kept."""
    return _next(conn, LAST_CREATED_KEY, now_ms)
