"""What a caller asks to buy, and what that means for one customer now: the quote.

An order is kept with a checkout and quoted again when it is paid, so it is applied as it was asked
for to what the customer holds then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, Mapping

from ..catalog.model import Plan
from ..catalog.snapshot import Catalog
from ..domain.intervals import code_of, next_reset
from ..errors import ApiError, NotSupported, not_found
from . import prices, steps, switches
from .holdings import HeldPlan, Holdings, cycle_anchor
from .prices import Line
from .switches import CarryOver, Moves

Schedule = Literal["immediate", "end_of_cycle"]
SCHEDULES = ("immediate", "end_of_cycle")


@dataclass(frozen=True)
class Order:
    """One plan, the units wanted of its prepaid features beyond the included ones, and for whom."""

    plan_uid: int
    quantities: Mapping[str, Decimal] = field(default_factory=dict)
    entity_id: str = ""
    carry_usages: CarryOver | None = None
    """What the call says of usage carried over; None leaves it to the plan."""
    carry_balances: CarryOver | None = None
    """What it says of what is left of the plan replaced."""
    schedule: Schedule | None = None
    """When it is to take effect; None leaves it to the prices."""

    def to_json(self) -> dict[str, Any]:
        """The form that SQL keeps."""
        quantities = {feature_id: str(units) for feature_id, units in self.quantities.items()}
        kept: dict[str, Any] = {"plan_uid": self.plan_uid, "quantities": quantities, "entity_id": self.entity_id}
        for name, carry in (("carry_usages", self.carry_usages), ("carry_balances", self.carry_balances)):
            if carry is not None:
                kept[name] = carry.to_json()
        if self.schedule is not None:
            kept["schedule"] = self.schedule
        return kept

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Order:
        """The order that `to_json` gave."""
        quantities = {feature_id: Decimal(units) for feature_id, units in kept["quantities"].items()}
        usages, balances = (
            CarryOver.from_json(kept[name]) if name in kept else None for name in ("carry_usages", "carry_balances")
        )
        return cls(kept["plan_uid"], quantities, kept["entity_id"], usages, balances, kept.get("schedule"))

    def moves(self, pays_debts: bool) -> Moves:
        """What its switch is to move; `pays_debts`: debts of free buckets outlive their period, so
        what is bought pays them first."""
        return Moves(self.carry_usages, self.carry_balances, pays_debts)


@dataclass(frozen=True)
class Quote:
    """What an order would do and cost now."""

    order: Order
    plan: Plan
    replaced: HeldPlan | None
    scenario: str
    """`new`, `upgrade` or `downgrade`."""
    lines: tuple[Line, ...]
    next_cycle_at: int | None
    """When the plan is billed again; None if it never is."""

    @property
    def total(self) -> Decimal:
        """Due at once."""
        return prices.total(self.lines)

    @property
    def next_total(self) -> Decimal:
        """Due at the next cycle, usage not counted."""
        return prices.recurring_total(self.lines)


def sellable_plan(catalog: Catalog, plan_id: str) -> Plan:
    """The newest version of a plan. Raises ApiError 404 `product_not_found`, or 400 for an
    archived one."""
    plan = catalog.plans.get(plan_id)
    if plan is None:
        raise not_found("product", plan_id)
    if plan.archived:
        raise ApiError(400, "invalid_request", f"product_id: {plan_id!r} is archived and cannot be attached")
    return plan


def quote(catalog: Catalog, holdings: Holdings, order: Order, now_ms: int) -> Quote:
    """What `order` means for a customer who has `holdings`.

    Raises ApiError: 400 `invalid_options`, 409 `customer_product_already_exists`, 400
    `not_supported` for a change that would have to wait for the end of the cycle, and 404
    `product_not_found` for a plan deleted meanwhile."""
    plan = catalog.plans_by_uid.get(order.plan_uid)
    if plan is None:
        raise ApiError(404, "product_not_found", "product_id: this plan was deleted meanwhile")
    _check_options(plan, order)
    bill = tuple(prices.lines(plan, catalog.features, order.quantities))
    replaced = None
    if not plan.is_add_on and not plan.is_one_off:
        replaced = holdings.main_plan(plan.group, order.entity_id)
    if replaced is not None:
        _check_switch(replaced, plan, order)
    _check_applies(catalog, holdings, plan, order, replaced, now_ms)
    billed = prices.billing_interval(plan)
    next_cycle_at = None
    if billed is not None:
        next_cycle_at = next_reset(cycle_anchor(replaced, plan, now_ms), code_of(billed[0]), billed[1], now_ms)
    return Quote(order, plan, replaced, _scenario(replaced, plan), bill, next_cycle_at)


def _check_options(plan: Plan, order: Order) -> None:
    prepaid = {item.feature_id for item in plan.items if item.is_prepaid}
    for feature_id in order.quantities:
        if feature_id not in prepaid:
            raise ApiError(
                400, "invalid_options", f"options: plan {plan.id!r} sells no quantity of {feature_id!r}"
            )


def _check_applies(
    catalog: Catalog, holdings: Holdings, plan: Plan, order: Order, replaced: HeldPlan | None, now_ms: int
) -> None:
    """Plans the step and throws it away: what cannot be applied is refused before it is paid."""
    new = steps.Enabled(plan, 0, order.quantities, order.entity_id, now_ms, 1)
    old = holdings.buckets_of(replaced) if replaced is not None else ()
    same_plan = replaced is not None and replaced.plan.id == plan.id
    switches.enable(catalog.features, holdings, new, old, order.moves(False), same_plan)


def _check_switch(replaced: HeldPlan, plan: Plan, order: Order) -> None:
    if replaced.plan.uid == plan.uid:
        held = {feature_id: Decimal(units) for feature_id, units in replaced.options.items()}
        if held != dict(order.quantities):
            raise NotSupported("options", "changing the quantities of a plan that is held is not supported yet")
        raise ApiError(409, "customer_product_already_exists", f"product_id: {plan.id!r} is attached already")
    if order.schedule == "end_of_cycle":
        raise NotSupported(
            "plan_schedule",
            f"the switch from {replaced.plan.id!r} to {plan.id!r} would wait for the end of the cycle, which is not "
            "supported yet",
        )
    if order.schedule is None and not prices.starts_at_once(replaced.plan, plan):
        raise NotSupported(
            "product_id",
            f"switching from {replaced.plan.id!r} to {plan.id!r} costs less a month, so it would start at the end "
            "of the cycle, which is not supported yet; plan_schedule \"immediate\" makes it start now",
        )


def _scenario(replaced: HeldPlan | None, plan: Plan) -> str:
    if replaced is None:
        return "new"
    return "upgrade" if prices.starts_at_once(replaced.plan, plan) else "downgrade"
