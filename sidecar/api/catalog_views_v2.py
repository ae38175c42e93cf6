"""Features and plans as API versions 2.0 and 2.1 and later show them. Pure."""

from __future__ import annotations

from typing import Any, Mapping

from ..billing.holdings import Holdings
from ..billing.prices import starts_at_once
from ..catalog.controls import Controls, Entry, said
from ..catalog.model import Feature, Item, Plan
from .balance_views_v2 import ONE_OFF
from .catalog_views import display_json, number

ROLLOVER_NAMES = {"duration": "expiry_duration_type", "length": "expiry_duration_length"}
"""What 2.x calls these fields of a rollover."""
ATTACH_ACTIONS = {"new": "activate", "upgrade": "upgrade", "downgrade": "downgrade", "active": "none"}


def feature_v2(feature: Feature) -> dict[str, Any]:
    """A feature of the catalog. What a version of 2.x may leave out is left out, not null."""
    shown: dict[str, Any] = {
        "id": feature.id,
        "name": feature.name,
        "type": "metered" if feature.is_metered else feature.type,
        "consumable": feature.type in ("single_use", "credit_system"),
        "event_names": list(feature.event_names),
        "precision": feature.precision,
        "archived": feature.archived,
    }
    if feature.type == "credit_system":
        shown["credit_schema"] = [
            {"metered_feature_id": member, "credit_cost": number(cost)} for member, cost in feature.credit_schema
        ]
    if feature.display:
        shown["display"] = dict(zip(("singular", "plural"), feature.display))
    return shown


def plan_v2(
    plan: Plan, features: Mapping[str, Feature], *, version: tuple[int, int], env: str = "sandbox",
    currency: str = "usd", scenario: str | None = None,
) -> dict[str, Any]:
    """A plan. Its first fixed price is `price`; `scenario` is what attaching it would be for a
    customer."""
    price = next((item for item in plan.items if item.feature_id is None), None)
    items = [_item(item, features, version, currency) for item in plan.items if item.feature_id is not None]
    shown: dict[str, Any] = {
        "id": plan.id,
        "name": plan.name,
        "description": plan.description,
        "group": plan.group or None,
        "version": plan.version,
        "add_on": plan.is_add_on,
        "auto_enable" if version >= (2, 1) else "default": plan.is_default,
        "price": None if price is None else {
            "amount": number(price.price),
            **_interval(price),
            "display": _display(price, None, currency),
        },
        "items" if version >= (2, 1) else "features": items,
        "created_at": plan.created_at,
        "env": env,
        "archived": plan.archived,
        "base_variant_id": None,
    }
    if version >= (2, 1):
        shown.update(config={"ignore_past_due": False}, metadata={})
    else:
        shown["free_trial"] = None
    if controls := controls_v2(plan.controls):
        shown["billing_controls"] = controls
    if scenario is not None:
        shown["customer_eligibility"] = _eligibility(plan, scenario, version)
    return shown


def controls_v2(controls: Controls) -> dict[str, Any]:
    """A plan's own controls, list by list; lists without entries are left out."""
    return {name: [entry_v2(entry) for entry in entries] for name, entries in controls.lists().items()}


def entry_v2(entry: Entry) -> dict[str, Any]:
    """One entry of a list of controls. What it leaves open is left out, not null."""
    return {name: number(value) for name, value in said(entry).items()}


def scenario_of(plan: Plan, holdings: Holdings, entity_id: str = "") -> str:
    """What attaching a plan would be for a customer with `holdings` (or one of its entities): new,
    upgrade, downgrade, or active for one that is held."""
    if plan.is_one_off:
        return "new"
    if any(held.plan.id == plan.id and held.entity_id == entity_id for held in holdings.plans):
        return "active"
    main = None if plan.is_add_on else holdings.main_plan(plan.group, entity_id)
    if main is None:
        return "new"
    return "upgrade" if starts_at_once(main.plan, plan) else "downgrade"


def _eligibility(plan: Plan, scenario: str, version: tuple[int, int]) -> dict[str, Any]:
    shown: dict[str, Any] = {"trial_available": False}
    if version < (2, 2):
        return {**shown, "scenario": scenario}
    if scenario == "active":
        shown["status"] = "active"
    return {**shown, "attach_action": "purchase" if plan.is_one_off else ATTACH_ACTIONS[scenario]}


def _item(item: Item, features: Mapping[str, Feature], version: tuple[int, int], currency: str) -> dict[str, Any]:
    feature = features.get(item.feature_id or "")
    shown: dict[str, Any] = {
        "feature_id": item.feature_id,
        "included" if version >= (2, 1) else "granted_balance": number(item.included_usage or 0),
        "unlimited": item.unlimited,
        "reset": _reset(item, version),
        "price": _price(item, version),
        "display": _display(item, feature, currency),
    }
    if item.entity_feature_id:
        shown["entity_feature_id"] = item.entity_feature_id
    if item.rollover is not None:
        shown["rollover"] = {
            "max": None,
            **{ROLLOVER_NAMES.get(name, name): number(value) for name, value in item.rollover.fields().items()},
        }
    return shown


def _reset(item: Item, version: tuple[int, int]) -> dict[str, Any] | None:
    if item.interval is None:
        return None
    reset = _interval(item)
    return reset if version >= (2, 1) else {**reset, "reset_when_enabled": item.reset_usage_when_enabled}


def _price(item: Item, version: tuple[int, int]) -> dict[str, Any] | None:
    if item.price is None:
        return None
    if version >= (2, 1):
        method = {"billing_method": "prepaid" if item.is_prepaid else "usage_based"}
    else:
        method = {"usage_model": item.usage_model}
    bought = None if item.usage_limit is None else number(item.usage_limit - (item.included_usage or 0))
    return {
        "amount": number(item.price), **_interval(item), "billing_units": number(item.billing_units), **method,
        "max_purchase": bought,
    }


def _interval(item: Item) -> dict[str, Any]:
    return {"interval": item.interval or ONE_OFF, "interval_count": item.interval_count}


def _display(item: Item, feature: Feature | None, currency: str) -> dict[str, Any]:
    return {name: text for name, text in display_json(item, feature, currency=currency).items() if text is not None}
