"""Customers and entities as API versions 2.0 and 2.1 and later show them. Pure: rows and live state
in, answers out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterable, Mapping, Sequence

from ..billing.holdings import HeldPlan
from ..catalog.control_fields import FIELD as CONTROLS_FIELD
from ..catalog.controls import Controls
from ..catalog.snapshot import Catalog
from ..store.customers import Customer
from .balance_views_v2 import balance_v20, balance_v21, flag_v21
from .catalog_views_v2 import feature_v2, plan_v2
from .control_views import customer_controls, entity_controls
from .customer_views import (
    HeldFeature, entity_base_v12, expansions, held_by_customer, held_by_entity, period_of,
)

if TYPE_CHECKING:
    from ..engine.engine import CustomerState


@dataclass(frozen=True)
class Look:
    """What an answer depends on beside what it shows."""

    catalog: Catalog
    version: tuple[int, int]
    env: str
    currency: str
    now_ms: int
    expand: frozenset[str] = frozenset()


def customer_v2(
    customer: Customer, plans: Sequence[HeldPlan], state: CustomerState | None, look: Look,
    entities: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """A customer: its own and its entities' plans, and the balances of all of them together.
    `entities` are the rows to list when they are expanded."""
    shown: dict[str, Any] = {
        "id": customer.id,
        "name": customer.name,
        "email": customer.email,
        "created_at": customer.created_at,
        "fingerprint": customer.fingerprint,
        "stripe_id": customer.stripe_id,
        "env": look.env,
        "metadata": customer.metadata,
        "send_email_receipts": False,
        CONTROLS_FIELD: customer_controls(controls_of(customer), plans, state, look.catalog),
        **_holdings(plans, held_by_customer(state, look.catalog), look),
    }
    if look.version >= (2, 1):
        shown.update(licenses=[], config={"disable_pooled_balance": False, "disable_overage_billing": False})
    shown.update(expansions(customer, look.env, look.expand, entities))
    return shown


def entity_v2(
    row: Mapping[str, Any], customer: Customer, plans: Iterable[HeldPlan], state: CustomerState | None, look: Look
) -> dict[str, Any]:
    """An entity: its own and the customer's plans, and the balances that a call with it can
    spend."""
    own = [held for held in plans if held.entity_id in ("", row["id"])]
    shown = entity_base_v12(row, customer.id, look.env)
    shown[CONTROLS_FIELD] = entity_controls(
        row["id"], Controls.from_json(row["billing_controls"]), controls_of(customer), own, state, look.catalog
    )
    shown.update(_holdings(own, held_by_entity(state, row["id"], look.catalog), look))
    if "invoices" in look.expand:
        shown["invoices"] = []
    return shown


def controls_of(customer: Customer) -> Controls:
    """A customer's own controls."""
    return Controls.from_json(customer.billing_controls)


def _holdings(plans: Iterable[HeldPlan], held: Iterable[HeldFeature], look: Look) -> dict[str, Any]:
    """The plans and balances of a customer or an entity. From 2.1 on one-off plans are purchases and
    boolean features are flags; 2.0 has no such places."""
    if look.version < (2, 1):
        return {
            "subscriptions": [_subscription(plan, look) for plan in plans],
            "scheduled_subscriptions": [],
            "balances": {
                each.feature.id: {**(balance_v20(*each) or {}), **_feature("balances", each, look)} for each in held
            },
        }
    plans, held = list(plans), list(held)
    return {
        "subscriptions": [_subscription(plan, look) for plan in plans if not plan.plan.is_one_off],
        "purchases": [_purchase(plan, look) for plan in plans if plan.plan.is_one_off],
        "balances": {
            each.feature.id: {**balance, **_feature("balances", each, look)} for each in held
            if (balance := balance_v21(each.feature, each.rows, look.catalog, each.slots, each.archived)) is not None
        },
        "flags": {
            each.feature.id: {**flag, **_feature("flags", each, look)} for each in held
            if (flag := flag_v21(each.feature, each.rows)) is not None
        },
    }


def _subscription(held: HeldPlan, look: Look) -> dict[str, Any]:
    start, end = period_of(held, look.now_ms)
    newer = look.version >= (2, 1)
    return {
        **({"id": f"sub_{held.uid}"} if newer else {}),
        "plan_id": held.plan.id,
        "auto_enable" if newer else "default": held.plan.is_default,
        "add_on": held.plan.is_add_on,
        "status": "active",
        "past_due": False,
        "canceled_at": None,
        "expires_at": None,
        "trial_ends_at": None,
        "started_at": held.started_at,
        "current_period_start": start,
        "current_period_end": end,
        "quantity": 1,
        **_scope(held, look),
        **_plan("subscriptions", held, look),
    }


def _purchase(held: HeldPlan, look: Look) -> dict[str, Any]:
    return {
        "plan_id": held.plan.id, "expires_at": None, "started_at": held.started_at, "quantity": 1,
        **_scope(held, look), **_plan("purchases", held, look),
    }


def _scope(held: HeldPlan, look: Look) -> dict[str, Any]:
    """Whose plan it is, where a version tells."""
    if look.version < (2, 1):
        return {}
    return {"scope": "entity" if held.entity_id else "customer", "entity_id": held.entity_id or None}


def _plan(place: str, held: HeldPlan, look: Look) -> dict[str, Any]:
    if f"{place}.plan" not in look.expand:
        return {}
    return {"plan": plan_v2(
        held.plan, look.catalog.features, version=look.version, env=look.env, currency=look.currency
    )}


def _feature(place: str, held: HeldFeature, look: Look) -> dict[str, Any]:
    return {"feature": feature_v2(held.feature)} if f"{place}.feature" in look.expand else {}
