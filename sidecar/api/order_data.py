"""Reading what a body asks to buy: for whom, how much of what, and how it is to be paid.

Both generations name things differently (`product_id` and `options`, `plan_id` and
`feature_quantities`); each name is read at every version.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Mapping, TypeVar

from ..billing.attach import Buyer, Terms
from ..billing.orders import SCHEDULES, Order, sellable_plan
from ..billing.switches import CarryOver
from ..catalog.model import Plan
from ..catalog.snapshot import Catalog
from ..errors import ApiError, NotSupported, invalid, not_found
from . import fields
from .customers import customer_data
from .endpoint import Call
from .request_data import entity_data_of

UNBUILT = (
    "free_trial", "reward", "invoice", "new_billing_subscription", "checkout_session_params", "metadata",
    "is_custom", "items", "invoice_only", "billing_cycle_anchor", "enable_product_immediately", "finalize_invoice",
    "discounts", "proration_behavior", "invoice_mode", "customize", "subscription_id", "starts_at", "ends_at",
    "long_lived_checkout", "custom_line_items", "processor_subscription_id", "license_quantities",
    "no_billing_changes", "enable_plan_immediately", "tax_rate_id", "remove_plan_ids",
)
"""Known fields of an order that have no effect yet, so may only ask for nothing."""
OPTION_UNBUILT = ("upcoming_quantity", "adjustable_quantity", "adjustable")
REDIRECT_MODES = ("always", "if_required", "never")

Choice = TypeVar("Choice", bound=str)


async def order_of(call: Call) -> tuple[Buyer, Order, Terms]:
    """The order in a body. Raises ApiError 4xx."""
    body = call.fields
    fields.refuse_unbuilt(body, UNBUILT)
    customer_id = fields.identifier(body, "customer_id")
    plan_id = _plan_id(body)
    entity_id = fields.optional_id(body, "entity_id") or ""
    terms = terms_of(call)
    data = customer_data(body.get("customer_data"), call.ctx, "customer_data.")
    entity = entity_data_of(body)
    schedule = _choice(body, "plan_schedule", SCHEDULES)
    _check_currency(body, call.ctx.settings.currency)
    catalog = await call.ctx.catalog.refresh()
    plan = sellable_plan(catalog, plan_id)
    _check_version(body, plan)
    usages, balances = (_carry_over(body, name, catalog) for name in ("carry_over_usages", "carry_over_balances"))
    order = Order(plan.uid, _quantities(body, plan), entity_id, usages, balances, schedule)
    return Buyer(customer_id, data, entity, must_exist=call.version >= (2, 1)), order, terms


def terms_of(call: Call) -> Terms:
    """How the body's order is to be paid. Raises ApiError 400."""
    body = call.fields
    mode = _choice(body, "redirect_mode", REDIRECT_MODES)
    force_checkout = fields.flag(body, "force_checkout") or False
    if force_checkout and mode == "never":
        raise invalid("redirect_mode", "never and force_checkout exclude each other")
    return Terms(
        call.base_url, fields.web_url(body, "success_url"), force_checkout or mode == "always",
        fields.flag(body, "setup_payment") or False, may_redirect=mode != "never",
    )


def names_a_plan(body: Mapping[str, Any]) -> bool:
    """Whether it says which plan it is about."""
    return any(body.get(name) is not None for name in ("plan_id", "product_id", "product_ids"))


def _plan_id(body: Mapping[str, Any]) -> str:
    given = [name for name in ("plan_id", "product_id", "product_ids") if body.get(name) is not None]
    if not given:
        raise invalid("product_id", "is required; it may also be named plan_id")
    if len(given) > 1:
        raise invalid(given[1], f"give either {given[0]} or {given[1]}")
    if given[0] != "product_ids":
        return fields.identifier(body, given[0])
    many = body["product_ids"]
    if not isinstance(many, list) or not many:
        raise invalid("product_ids", "must be a list of ids")
    ids = [fields.checked_id(plan_id, f"product_ids[{index}]") for index, plan_id in enumerate(many)]
    if len(ids) > 1:
        raise NotSupported("product_ids", "attaching several plans in one call is not supported yet")
    return ids[0]


def _choice(body: Mapping[str, Any], name: str, allowed: tuple[Choice, ...]) -> Choice | None:
    value = body.get(name)
    for one in allowed:
        if value == one:
            return one
    if value is not None:
        raise invalid(name, f"must be one of {', '.join(allowed)}")
    return None


def _check_currency(body: Mapping[str, Any], ours: str) -> None:
    wanted = fields.text(body, "currency")
    if wanted and wanted.lower() != ours.lower():
        raise NotSupported("currency", f"everything is sold in {ours}")


def _check_version(body: Mapping[str, Any], plan: Plan) -> None:
    version = body.get("version")
    if version is not None and fields.number(version, "version") != plan.version:
        raise NotSupported("version", f"only the newest version ({plan.version}) can be attached")


def _quantities(body: Mapping[str, Any], plan: Plan) -> dict[str, Decimal]:
    """Units to buy of each feature beyond the included ones: `options` counts just those,
    `feature_quantities` the included ones too. Raises ApiError 400 `invalid_options`."""
    included = {item.feature_id: item.included_usage or Decimal(0) for item in plan.items if item.is_prepaid}
    quantities: dict[str, Decimal] = {}
    for name in ("options", "feature_quantities"):
        entries = body.get(name)
        if entries is None:
            continue
        if not isinstance(entries, list):
            raise _wrong_options(f"{name}: must be a list")
        for index, entry in enumerate(entries):
            at = f"{name}[{index}]"
            if not isinstance(entry, dict):
                raise _wrong_options(f"{at}: must be an object")
            fields.refuse_unbuilt(entry, OPTION_UNBUILT)
            feature_id, units = entry.get("feature_id"), entry.get("quantity")
            if not isinstance(feature_id, str):
                raise _wrong_options(f"{at}.feature_id: must be a string")
            if units is None and name == "feature_quantities":
                continue
            if isinstance(units, bool) or not isinstance(units, (int, Decimal)) or units < 0 or units > 10**18:
                raise _wrong_options(f"{at}.quantity: must be a number of units, 0 or more")
            if feature_id in quantities:
                raise _wrong_options(f"{at}.feature_id: {feature_id!r} is listed twice")
            beyond = Decimal(units) - (included.get(feature_id, Decimal(0)) if name == "feature_quantities" else 0)
            quantities[feature_id] = max(Decimal(0), beyond)
    return quantities


def _carry_over(body: Mapping[str, Any], name: str, catalog: Catalog) -> CarryOver | None:
    """What the call says of usage, or of what is left, at a switch; None if nothing. Raises ApiError
    400 or 404."""
    given = body.get(name)
    if given is None:
        return None
    if not isinstance(given, dict):
        raise invalid(name, "must be an object")
    enabled = fields.flag(given, "enabled", f"{name}.")
    if enabled is None:
        raise invalid(f"{name}.enabled", "is required")
    ids = given.get("feature_ids")
    if ids is None:
        return CarryOver(enabled)
    if not isinstance(ids, list):
        raise invalid(f"{name}.feature_ids", "must be a list of ids")
    named = [fields.checked_id(each, f"{name}.feature_ids[{index}]") for index, each in enumerate(ids)]
    for feature_id in named:
        if feature_id not in catalog.features:
            raise not_found("feature", feature_id)
    return CarryOver(enabled, frozenset(named))


def _wrong_options(message: str) -> ApiError:
    return ApiError(400, "invalid_options", message)
