"""Billing controls: what caps spending beyond a grant, for a plan, a customer or an entity.

Plain frozen values, equal when they say the same; `control_fields` is what makes them from outside
input, `billing.controls` what decides which of several are in force.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, Iterable, Literal, Mapping

LimitType = Literal["absolute", "usage_percentage"]
WindowInterval = Literal["day", "week", "month", "year"]
WindowAnchor = Literal["billing_cycle", "utc"]

LIMIT_TYPES = ("absolute", "usage_percentage")
WINDOW_INTERVALS = ("day", "week", "month", "year")
WINDOW_ANCHORS = ("billing_cycle", "utc")
THRESHOLD_TYPES = ("usage", "usage_percentage", "remaining", "remaining_percentage")


@dataclass(frozen=True)
class SpendLimit:
    """A ceiling on overage."""

    feature_id: str | None = None
    """None: every feature that counts units."""
    enabled: bool = True
    limit_type: LimitType = "absolute"
    overage_limit: Decimal | None = None
    """In units, or in percent of the recurring starting balance; None sets no ceiling."""
    skip_overage_billing: bool = False


@dataclass(frozen=True)
class UsageLimit:
    """The most units that may be used within a window of time, whatever the balance."""

    feature_id: str
    enabled: bool
    limit: Decimal
    interval: WindowInterval
    anchor: WindowAnchor = "billing_cycle"


@dataclass(frozen=True)
class OverageAllowed:
    """Whether a feature's balance may go below zero."""

    feature_id: str
    enabled: bool = True


@dataclass(frozen=True)
class UsageAlert:
    """A notice when usage, or what is left, passes a threshold."""

    feature_id: str | None
    enabled: bool
    threshold: Decimal
    threshold_type: str
    name: str | None = None


@dataclass(frozen=True)
class PurchaseLimit:
    """How many purchases there may be in an interval."""

    interval: str
    limit: int
    interval_count: int = 1


@dataclass(frozen=True)
class AutoTopup:
    """A purchase made by itself when the balance falls below a threshold."""

    feature_id: str
    enabled: bool
    threshold: Decimal
    quantity: Decimal
    purchase_limit: PurchaseLimit | None = None


Entry = SpendLimit | UsageLimit | OverageAllowed | UsageAlert | AutoTopup
_DECIMALS = ("overage_limit", "limit", "threshold", "quantity")


@dataclass(frozen=True)
class Controls:
    """The entries of one plan, customer or entity, list by list."""

    spend_limits: tuple[SpendLimit, ...] = ()
    usage_limits: tuple[UsageLimit, ...] = ()
    overage_allowed: tuple[OverageAllowed, ...] = ()
    usage_alerts: tuple[UsageAlert, ...] = ()
    auto_topups: tuple[AutoTopup, ...] = ()

    def lists(self) -> dict[str, tuple[Entry, ...]]:
        """The lists that are not empty, by name."""
        return {field.name: entries for field in fields(self) if (entries := getattr(self, field.name))}

    @property
    def capping(self) -> Iterable[SpendLimit | UsageLimit | OverageAllowed]:
        """The entries that have a say in every call."""
        return (*self.spend_limits, *self.usage_limits, *self.overage_allowed)

    def names(self, feature_id: str) -> bool:
        """Whether an entry is about this very feature."""
        return any(entry.feature_id == feature_id for entries in self.lists().values() for entry in entries)

    def to_json(self) -> dict[str, Any] | None:
        """The stored form, decimals as text; None if there are no entries."""
        return {name: [_stored(said(entry)) for entry in entries] for name, entries in self.lists().items()} or None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any] | None) -> Controls:
        """The controls `to_json` gave."""
        return cls(**{
            name: tuple(_entry(ENTRY_TYPES[name], entry) for entry in entries)
            for name, entries in (stored or {}).items()
        })


NO_CONTROLS = Controls()
ENTRY_TYPES: dict[str, type] = {
    "spend_limits": SpendLimit, "usage_limits": UsageLimit, "overage_allowed": OverageAllowed,
    "usage_alerts": UsageAlert, "auto_topups": AutoTopup,
}


def said(entry: Any) -> dict[str, Any]:
    """What an entry says, field by field; what it leaves open is left out."""
    return {
        name: said(value) if isinstance(value, PurchaseLimit) else value
        for name, value in vars(entry).items() if value is not None
    }


def _stored(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Decimal) else value for name, value in entry.items()}


def _entry(kind: type, stored: Mapping[str, Any]) -> Any:
    missing: dict[str, Any] = {"feature_id": None} if kind is UsageAlert else {}
    values = {name: Decimal(value) if name in _DECIMALS else value for name, value in stored.items()}
    if "purchase_limit" in values:
        values["purchase_limit"] = PurchaseLimit(**values["purchase_limit"])
    return kind(**{**missing, **values})
