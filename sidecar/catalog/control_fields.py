"""Validation of `billing_controls`, for plans, customers and entities alike."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Callable, Hashable, Mapping, TypeVar

from .controls import (
    ENTRY_TYPES, LIMIT_TYPES, NO_CONTROLS, THRESHOLD_TYPES, WINDOW_ANCHORS, WINDOW_INTERVALS, AutoTopup, Controls,
    OverageAllowed, PurchaseLimit, SpendLimit, UsageAlert, UsageLimit,
)
from .fields import Fields, Problems, canonical, join
from .items import INTERVAL_NAMES
from .model import Feature

FIELD = "billing_controls"
ENTRIES_MAX = 100
PERCENT_MAX = 1_000_000
_NOT_ON_ENTITIES = "auto_topups"

T = TypeVar("T")
Known = Mapping[str, Feature]


def read_controls(
    owner: Fields, features: Known, base: Controls = NO_CONTROLS, *, strict: bool = False, of_entity: bool = False
) -> Controls:
    """The controls in the field `billing_controls` of `owner`: a list that is given replaces the one
    of `base` whole, one that is not stays. What is wrong is noted as a problem; then the result
    means nothing."""
    if not owner.given(FIELD):
        return base
    c = Fields(owner.raw[FIELD], join(owner.path, FIELD), owner.problems)
    if strict:
        c.only(ENTRY_TYPES)
    if of_entity and c.raw.get(_NOT_ON_ENTITIES):
        c.wrong(_NOT_ON_ENTITIES, "belong to the customer, not to an entity")

    def entries(name: str, read: Callable[[Fields, Known], T | None], key: Callable[[T], Hashable]) -> tuple[T, ...]:
        return _list(c, name, read, key, features, getattr(base, name), strict)

    return Controls(
        spend_limits=entries("spend_limits", _spend_limit, lambda e: e.feature_id),
        usage_limits=entries("usage_limits", _usage_limit, lambda e: (e.feature_id, e.interval, e.anchor)),
        overage_allowed=entries("overage_allowed", _overage_allowed, lambda e: e.feature_id),
        usage_alerts=entries("usage_alerts", _usage_alert, lambda e: (e.feature_id, e.threshold_type, e.threshold, e.name)),
        auto_topups=entries("auto_topups", _auto_topup, lambda e: e.feature_id),
    )


@dataclass(frozen=True)
class GivenControls:
    """The field `billing_controls` as a caller gave it. It is held against the features there are when
    it is stored, in that transaction. `path` is where the field stood."""

    raw: Any
    path: str = ""
    of_entity: bool = False

    def over(self, base: Controls, features: Known) -> Controls:
        """As `read_controls`. Raises ApiError 400."""
        problems = Problems()
        read = read_controls(Fields({FIELD: self.raw}, self.path, problems), features, base, of_entity=self.of_entity)
        problems.raise_for_caller()
        return read


def _list(
    c: Fields, name: str, read: Callable[[Fields, Known], T | None], key: Callable[[T], Hashable], features: Known,
    base: tuple[T, ...], strict: bool,
) -> tuple[T, ...]:
    given = c.objects(name)
    if given is None:
        return base
    if len(given) > ENTRIES_MAX:
        c.wrong(name, f"must be at most {ENTRIES_MAX}, got {len(given)}")
        return base
    found: dict[Hashable, T] = {}
    for entry in given:
        if strict:
            entry.only(ENTRY_TYPES[name].__dataclass_fields__)
        before = len(c.problems)
        one = read(entry, features)
        if one is None or len(c.problems) > before:
            continue
        if key(one) in found:
            entry.wrong("", f"says the same thing as another entry of {name}: {_shown(key(one))}; keep one of them")
        found.setdefault(key(one), one)
    return tuple(found.values())


def _spend_limit(e: Fields, features: Known) -> SpendLimit | None:
    feature = _feature(e, features)
    kind = e.choice("limit_type", LIMIT_TYPES) or "absolute"
    limit = e.percent("overage_limit", PERCENT_MAX) if kind == "usage_percentage" else _quantity(e, "overage_limit", feature)
    enabled, skips = _enabled(e), e.flag("skip_overage_billing") or False
    if enabled and skips:
        e.unsupported("skip_overage_billing", "has no effect yet: leave it out, or set enabled to false")
    return SpendLimit(feature.id if feature else None, enabled, kind, limit, skips)  # type: ignore[arg-type]


def _usage_limit(e: Fields, features: Known) -> UsageLimit | None:
    _required(e, "feature_id", "limit", "interval")
    feature = _feature(e, features)
    limit, interval = _quantity(e, "limit", feature), e.choice("interval", WINDOW_INTERVALS)
    anchor, enabled = e.choice("anchor", WINDOW_ANCHORS) or "billing_cycle", _enabled(e)
    if feature is None or limit is None or interval is None:
        return None
    return UsageLimit(feature.id, enabled, limit, interval, anchor)  # type: ignore[arg-type]


def _overage_allowed(e: Fields, features: Known) -> OverageAllowed | None:
    _required(e, "feature_id")
    feature, enabled = _feature(e, features), _enabled(e)
    return None if feature is None else OverageAllowed(feature.id, enabled)


def _usage_alert(e: Fields, features: Known) -> UsageAlert | None:
    _required(e, "threshold", "threshold_type")
    feature = _feature(e, features)
    kind = e.choice("threshold_type", THRESHOLD_TYPES)
    by_percent = kind is not None and kind.endswith("_percentage")
    threshold = e.percent("threshold", PERCENT_MAX) if by_percent else _quantity(e, "threshold", feature)
    name, enabled = e.text("name"), _not_yet(e, "alerts")
    if kind is None or threshold is None:
        return None
    if kind == "remaining_percentage" and threshold > 100:
        e.wrong("threshold", f"must be from 0 to 100, got {threshold}")
    return UsageAlert(feature.id if feature else None, enabled, threshold, kind, name)


def _auto_topup(e: Fields, features: Known) -> AutoTopup | None:
    _required(e, "feature_id", "threshold", "quantity")
    feature = _feature(e, features)
    threshold, quantity = _quantity(e, "threshold", feature), _quantity(e, "quantity", feature)
    limit, enabled = _purchase_limit(e), _not_yet(e, "automatic top-ups")
    if quantity == 0:
        e.wrong("quantity", "must be more than 0")
    if feature is None or threshold is None or quantity is None:
        return None
    return AutoTopup(feature.id, enabled, threshold, quantity, limit)


def _not_yet(e: Fields, what: str) -> bool:
    """Whether an entry is on, of a kind that is kept and does nothing yet: then it is refused."""
    enabled = _enabled(e)
    if enabled and e.is_object:
        e.unsupported("enabled", f"{what} have no effect yet: set it to false to keep the entry, or leave it out")
    return enabled


def _purchase_limit(e: Fields) -> PurchaseLimit | None:
    if not e.given("purchase_limit"):
        return None
    p = Fields(e.raw["purchase_limit"], join(e.path, "purchase_limit"), e.problems)
    _required(p, "interval", "limit")
    interval, count = p.choice("interval", INTERVAL_NAMES), p.integer("interval_count", 1, 1000)
    limit = p.integer("limit", 1, 10**6)
    return None if interval is None or limit is None else PurchaseLimit(interval, limit, count or 1)


def _feature(e: Fields, features: Known) -> Feature | None:
    """The feature that an entry is about; None if it names none, or one that it cannot be about."""
    feature_id = e.identifier("feature_id")
    if feature_id is None:
        return None
    feature = features.get(feature_id)
    if feature is None:
        e.wrong("feature_id", f"there is no feature {feature_id!r}; create it first, or correct the id")
    elif feature.type == "boolean":
        e.wrong("feature_id", f"{feature_id!r} is boolean: held or not, so there is nothing to count")
        return None
    return feature


def _enabled(e: Fields) -> bool:
    return e.flag("enabled") is not False


def _quantity(e: Fields, name: str, feature: Feature | None) -> Decimal | None:
    """A quantity of the feature; of no one in particular, what the finest of precisions can hold."""
    if feature is not None:
        return e.quantity(name, feature.precision)
    value = e.number(name)
    if value is None:
        return None
    if value < 0 or value >= Decimal(2**53) or -canonical(value).as_tuple().exponent > 9:  # type: ignore[operator]
        e.wrong(name, f"must be from 0 to {2**53 - 1}, with at most 9 decimal places, got {value}")
        return None
    return canonical(value)


def _required(e: Fields, *names: str) -> None:
    for name in names:
        if e.is_object and not e.given(name):
            e.wrong(name, "is required")


def _shown(key: Hashable) -> str:
    if isinstance(key, tuple):
        return " ".join(str(part) for part in key if part is not None)
    return "every feature" if key is None else str(key)
