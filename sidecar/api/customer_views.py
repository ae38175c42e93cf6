"""Customers and entities as API version 1.2 shows them. Pure: rows and live state in, answers out."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Iterable, Mapping, NamedTuple

from ..billing import prices
from ..billing.holdings import HeldPlan
from ..catalog.model import Feature
from ..catalog.snapshot import Catalog
from ..domain.intervals import add_interval, code_of, length_ms
from ..domain.layout import Archived, Row, Slot
from ..store.customers import Customer
from .balance_views import feature_v12
from .catalog_views import product_json

if TYPE_CHECKING:
    from ..engine.engine import CustomerState

CUSTOMER_EXPANDS = (
    "invoices", "invoice_previews", "trials_used", "rewards", "entities", "referrals", "payment_method",
    "upcoming_invoice", "subscriptions.plan", "purchases.plan", "balances.feature", "flags.feature",
)
ENTITY_EXPANDS = ("invoices",)


def customer_v12(
    customer: Customer, plans: Iterable[HeldPlan], state: CustomerState | None, catalog: Catalog, *,
    env: str, currency: str, now_ms: int, expand: Iterable[str] = (), entities: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """A customer: its own and its entities' plans, and the balances of all of them together.
    `entities` are the rows to list when `expand` names them."""
    shown: dict[str, Any] = {
        "id": customer.id,
        "created_at": customer.created_at,
        "name": customer.name,
        "email": customer.email,
        "fingerprint": customer.fingerprint,
        "stripe_id": customer.stripe_id,
        "env": env,
        "metadata": customer.metadata,
        "products": [_product(held, catalog, env, currency, now_ms) for held in plans],
        "features": customer_features_v12(state, catalog),
    }
    shown.update(expansions(customer, env, expand, entities))
    return shown


def expansions(
    customer: Customer, env: str, expand: Iterable[str], entities: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """The fields of a customer that come only when `expand` names them."""
    shown: dict[str, Any] = {}
    for name in expand:
        if name == "payment_method":
            shown[name] = customer.payment_method
        elif name == "entities":
            shown[name] = [entity_base_v12(row, customer.id, env) for row in entities]
        elif name == "upcoming_invoice":
            shown[name] = None
        elif name == "rewards":
            shown[name] = {"discounts": []}
        elif "." not in name:
            shown[name] = []  # invoices, trials and referrals: none have ever been made
    return shown


def entity_v12(
    row: Mapping[str, Any], customer_id: str, plans: Iterable[HeldPlan], state: CustomerState | None,
    catalog: Catalog, *, env: str, currency: str, now_ms: int, expand: Iterable[str] = (),
) -> dict[str, Any]:
    """An entity: its own and the customer's plans, and the balances that a call with it can
    spend."""
    shown = entity_base_v12(row, customer_id, env)
    shown["products"] = [
        _product(held, catalog, env, currency, now_ms) for held in plans if held.entity_id in ("", row["id"])
    ]
    shown["features"] = entity_features_v12(state, row["id"], catalog)
    if "invoices" in expand:
        shown["invoices"] = []
    return shown


def entity_base_v12(row: Mapping[str, Any], customer_id: str, env: str) -> dict[str, Any]:
    """An entity's own fields."""
    return {
        "id": row["id"], "name": row["name"], "customer_id": customer_id, "feature_id": row["feature_id"],
        "created_at": row["created_at"], "env": env,
    }


def customer_features_v12(state: CustomerState | None, catalog: Catalog) -> dict[str, Any]:
    """The customer's view: customer-level buckets and every entity's."""
    return {held.feature.id: feature_v12(*held) for held in held_by_customer(state, catalog)}


def entity_features_v12(state: CustomerState | None, entity_id: str, catalog: Catalog) -> dict[str, Any]:
    """An entity's view: its own buckets and shares, and the customer-level ones."""
    return {held.feature.id: feature_v12(*held) for held in held_by_entity(state, entity_id, catalog)}


class HeldFeature(NamedTuple):
    """The usable buckets of a feature in a view. `slots` are an entity's shares, None in a
    customer's view; `archived` is what left the hot state."""

    feature: Feature
    rows: list[Row]
    slots: list[Slot] | None
    archived: Archived


def held_by_customer(state: CustomerState | None, catalog: Catalog) -> list[HeldFeature]:
    """What the customer's view shows, in the order of the features' creation. What holds have of
    entities' shares counts as held of the grant per entity."""
    if state is None:
        return []
    held = {feature_id: _with_shares_held(state, feature_id) for feature_id in state.features}
    for (feature_id, _), (rows, _) in state.entities.items():
        held.setdefault(feature_id, []).extend(rows)
    return _usable(held, None, catalog, state, None)


def held_by_entity(state: CustomerState | None, entity_id: str, catalog: Catalog) -> list[HeldFeature]:
    """What an entity's view shows, in the order of the features' creation."""
    if state is None:
        return []
    entity_feature = state.entity_features.get(entity_id)
    held = {
        feature_id: [row for row in rows if not row.per_entity or row.entity_feature == entity_feature]
        for feature_id, rows in state.features.items()
    }
    slots: dict[str, list[Slot]] = {feature_id: [] for feature_id in held}
    for (feature_id, owner), (rows, own_slots) in state.entities.items():
        if owner == entity_id:
            held.setdefault(feature_id, []).extend(rows)
            slots.setdefault(feature_id, []).extend(own_slots)
    return _usable(held, slots, catalog, state, entity_id)


def _with_shares_held(state: CustomerState, feature_id: str) -> list[Row]:
    rows = list(state.features[feature_id])
    if not any(row.per_entity for row in rows):
        return rows
    held: Counter[tuple[int, int]] = Counter()
    for (feature, _), (_, slots) in state.entities.items():
        if feature == feature_id:
            held.update({(slot.no, slot.period): slot.held for slot in slots})
    return [
        row._replace(held=row.held + held[row.no, row.next_reset_at]) if row.per_entity else row for row in rows
    ]


def _usable(
    held: Mapping[str, list[Row]], slots: Mapping[str, list[Slot]] | None, catalog: Catalog, state: CustomerState,
    entity_id: str | None,
) -> list[HeldFeature]:
    """The features of which there is something; `entity_id` None for the customer's view."""
    archived: dict[str, list[Archived]] = {}
    for (feature_id, owner), left in state.archived.items():
        if entity_id is None or owner in ("", entity_id):
            archived.setdefault(feature_id, []).append(left)
    found = []
    for feature_id, feature in catalog.features.items():
        rows = [row for row in held.get(feature_id, ()) if not row.expires_at or row.expires_at > state.now_ms]
        left = Archived.sum(archived.get(feature_id, ()))
        if rows or left.count:
            found.append(HeldFeature(feature, rows, None if slots is None else slots.get(feature_id, []), left))
    return found


def _product(held: HeldPlan, catalog: Catalog, env: str, currency: str, now_ms: int) -> dict[str, Any]:
    plan = held.plan
    start, end = period_of(held, now_ms)
    units = {feature_id: Decimal(text) for feature_id, text in held.options.items()}
    return {
        "id": plan.id,
        "name": plan.name,
        "group": plan.group or None,
        "status": "active",
        "started_at": held.started_at,
        "canceled_at": None,
        "is_default": plan.is_default,
        "is_add_on": plan.is_add_on,
        "version": plan.version,
        "current_period_start": start,
        "current_period_end": end,
        "entity_id": held.entity_id or None,
        "items": product_json(plan, catalog.features, env=env, currency=currency, quantities=units)["items"],
        "quantity": 1,
    }


def period_of(held: HeldPlan, now_ms: int) -> tuple[int | None, int | None]:
    """The billing period that a plan is in; none for a plan that is not billed again."""
    billed = prices.billing_interval(held.plan)
    if billed is None:
        return None, None
    code, count = code_of(billed[0]), billed[1]
    k = (now_ms - held.anchor) // length_ms(code, count) + 1
    while k > 0 and add_interval(held.anchor, code, count, k) > now_ms:
        k -= 1
    return add_interval(held.anchor, code, count, k), add_interval(held.anchor, code, count, k + 1)
