"""What a period's overage costs, in exact decimals, from the plan item that the bucket came from."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Iterable

from sqlalchemy import Connection, select

from sidecar.store.tables import features, plans

ITEMS_PER_PLAN_MAX = 1000
PLACES_MAX = 12
"""Decimal places of an amount that has no end (a price per 3 units)."""


@dataclass(frozen=True, slots=True)
class Charge:
    """Units and what they cost, as decimal text; None where the item has no single price."""

    units: str
    price: str | None
    billing_units: str | None
    amount: str | None


def text(value: Fraction) -> str:
    """A fraction as plain decimal text: exact if it ends, else rounded half up to PLACES_MAX
    places."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives) if rest == 1 else PLACES_MAX
    scaled = abs(value) * 10**places
    digits = str((2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)).zfill(places + 1)
    whole, part = (digits[:-places], digits[-places:].rstrip("0")) if places else (digits, "")
    return ("-" if value < 0 and digits.strip("0") else "") + whole + ("." + part if part else "")


class Prices:
    """The plan items and feature precisions that some buckets' charges need, read once."""

    def __init__(self, conn: Connection, wanted: Iterable[tuple[int, str]]):
        """`wanted`: (item, feature id) of each bucket that owes."""
        pairs = set(wanted)
        uids = {plan_uid(item) for item, _ in pairs if item}
        ids = {feature_id for _, feature_id in pairs}
        self._items: dict[int, Any] = {}
        self._precisions: dict[str, int] = {}
        if uids:
            query = select(plans.c.uid, plans.c["items"]).where(plans.c.uid.in_(uids))
            self._items = {uid: items for uid, items in conn.execute(query)}
        if ids:
            query = select(features.c.id, features.c.precision).where(features.c.id.in_(ids))
            self._precisions = {feature_id: precision for feature_id, precision in conn.execute(query)}

    def charge(self, item: int, feature_id: str, over_units: int) -> Charge:
        """What scaled `over_units` of a feature cost. Raises LookupError for an unknown feature
        or plan item."""
        if feature_id not in self._precisions:
            raise LookupError(f"feature {feature_id!r} does not exist")
        units = Fraction(over_units, 10 ** self._precisions[feature_id])
        terms = self._terms(item) if item else {}
        if terms.get("price") is None:
            return Charge(text(units), None, None, None)
        price, billing_units = _exact(terms["price"]), _exact(terms.get("billing_units") or 1)
        if billing_units <= 0:
            raise ValueError(f"item {item} has billing_units {billing_units}")
        return Charge(text(units), text(price), text(billing_units), text(units / billing_units * price))

    def _terms(self, item: int) -> dict[str, Any]:
        items, index = self._items.get(plan_uid(item)), (item - 1) % ITEMS_PER_PLAN_MAX
        if items is None or index >= len(items):
            raise LookupError(f"plan item {item} does not exist")
        found = items[index]
        if not isinstance(found, dict):
            raise LookupError(f"plan item {item} is not a map")
        return found


def plan_uid(item: int) -> int:
    """The plan of a bucket's `item` (plan uid × 1000 + index + 1)."""
    return (item - 1) // ITEMS_PER_PLAN_MAX


def _exact(value: Any) -> Fraction:
    """A catalog number, which is decimal text or a JSON number, without its float noise."""
    return Fraction(Decimal(str(value)))
