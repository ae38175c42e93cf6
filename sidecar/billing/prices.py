"""What plans cost: exact decimals, pure.

Knows plans and quantities; nothing of SQL, cards or the wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Mapping, Sequence

from ..catalog.model import Feature, Item, Plan
from ..domain.intervals import length_ms, code_of
from ..domain.quantities import unscale
from ..errors import ApiError

Quantities = Mapping[str, Decimal]
"""Units bought of each feature, beyond what its items include."""

_MONTHS = {"month": 1, "quarter": 3, "semi_annual": 6, "year": 12}
_YEAR_MS = 365 * 86_400_000


@dataclass(frozen=True)
class Line:
    """One line of a bill: what an item of a plan costs now."""

    item: Item
    item_index: int
    amount: Decimal
    units: Decimal | None
    """Units of the feature that are bought; None for a fixed price."""
    description: str


def packs(item: Item, units: Decimal) -> int:
    """How many times `billing_units` must be bought to have `units`: ⌈units ÷ billing_units⌉."""
    ratio = Fraction(units) / Fraction(item.billing_units)
    return -(-ratio.numerator // ratio.denominator)


def bought_units(item: Item, units: Decimal) -> Decimal:
    """The units that buying `units` of a prepaid item really grants: whole packs."""
    return packs(item, units) * item.billing_units


def price_of(item: Item) -> Decimal:
    """The price of a priced item. It must have one."""
    assert item.price is not None
    return item.price


def quantity_of(item: Item, quantities: Quantities) -> Decimal:
    """The quantity asked for of a prepaid item. Raises ApiError 400 `invalid_options` without."""
    assert item.feature_id is not None
    if item.feature_id not in quantities:
        raise ApiError(
            400, "invalid_options",
            f"options: {item.feature_id!r} is prepaid, so say how many units to buy, as "
            f'{{"feature_id": "{item.feature_id}", "quantity": …}}',
        )
    return quantities[item.feature_id]


def lines(plan: Plan, features: Mapping[str, Feature], quantities: Quantities) -> list[Line]:
    """What attaching `plan` costs at once: its fixed prices and its prepaid quantities. Usage is
    billed when its period ends and has no line. Raises ApiError 400 `invalid_options`."""
    found: list[Line] = []
    for index, item in enumerate(plan.items):
        if item.type == "price":
            found.append(Line(item, index, price_of(item), None, plan.name))
        elif item.type == "priced_feature" and item.is_prepaid:
            assert item.feature_id is not None
            wanted = quantity_of(item, quantities)
            units = bought_units(item, wanted)
            text = f"{plan.name} - {number(units)} {units_name(features[item.feature_id], units)}"
            found.append(Line(item, index, packs(item, wanted) * price_of(item), units, text))
    return found


def total(bill: Sequence[Line]) -> Decimal:
    """The sum of a bill's lines."""
    return sum((line.amount for line in bill), Decimal(0))


def recurring_total(bill: Sequence[Line]) -> Decimal:
    """What of a bill comes again each period."""
    return sum((line.amount for line in bill if line.item.interval is not None), Decimal(0))


def billing_interval(plan: Plan) -> tuple[str, int] | None:
    """The shortest interval in which `plan` is billed, as (name, count); None if it never is
    again."""
    priced = [(i.interval, i.interval_count) for i in plan.items if i.price is not None and i.interval is not None]
    return min(priced, key=lambda pair: length_ms(code_of(pair[0]), pair[1]), default=None)


def keeps_cycle(current: Plan, new: Plan) -> bool:
    """Whether a switch from `current` to `new` keeps the billing cycle and its anchor: when the new
    one's is the same or longer. A plan without any interval has no cycle to keep."""
    now, then = _cycle_ms(current), _cycle_ms(new)
    return 0 < now <= then


def fixed_per_month(plan: Plan) -> Fraction:
    """The fixed recurring prices of `plan` per month, for telling an upgrade from a downgrade."""
    return sum(
        (
            Fraction(price_of(item)) / _months(item.interval, item.interval_count)
            for item in plan.items if item.type == "price" and item.interval is not None
        ),
        Fraction(0),
    )


def starts_at_once(current: Plan | None, new: Plan) -> bool:
    """Whether a switch from `current` to `new` takes effect now rather than at the cycle's end:
    when it costs as much or more a month, or is the first plan with any price."""
    if current is None or not current.is_paid:
        return True
    return fixed_per_month(new) >= fixed_per_month(current)


def number(value: Decimal | int) -> str:
    """A quantity or price for people: without exponent or trailing zeros."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def plain(value: Decimal) -> int | Decimal:
    """A decimal as the wire shows it: an int when whole, else without trailing zeros."""
    places = -min(0, int(value.as_tuple().exponent))
    return unscale(int(value.scaleb(places)), places)


def units_name(feature: Feature, units: Decimal | int) -> str:
    """What `units` of a feature are called in a text."""
    if feature.display is None:
        return feature.name or feature.id
    return feature.display[0 if units == 1 else 1]


def _cycle_ms(plan: Plan) -> int:
    """The length of a plan's cycle: that in which it is billed, else its shortest reset; 0 for
    none."""
    if (billed := billing_interval(plan)) is not None:
        return length_ms(code_of(billed[0]), billed[1])
    resets = [length_ms(code_of(item.interval), item.interval_count) for item in plan.items if item.interval is not None]
    return min(resets, default=0)


def _months(interval: str, count: int) -> Fraction:
    if interval in _MONTHS:
        return Fraction(_MONTHS[interval] * count)
    return Fraction(12 * length_ms(code_of(interval), count), _YEAR_MS)
