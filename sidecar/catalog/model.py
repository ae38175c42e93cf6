"""What is sold: features, and plans made of items. Plain frozen values, equal when they say the
same; quantities and money are `Decimal`, never floats.

This module knows nothing of SQL, files or HTTP; `validate` is what makes these from outside input.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from .controls import NO_CONTROLS, Controls

FeatureType = Literal["boolean", "single_use", "continuous_use", "credit_system"]
UsageModel = Literal["prepaid", "pay_per_use"]
RolloverDuration = Literal["month", "forever"]

FEATURE_TYPES = ("boolean", "single_use", "continuous_use", "credit_system")
USAGE_MODELS = ("prepaid", "pay_per_use")
ROLLOVER_DURATIONS = ("month", "forever")
DEFAULT_PRECISION = 6
PRECISION_MAX = 9
ITEM_REF_UNIT = 1000
"""A bucket names its item as plan uid × this + index + 1; a plan has fewer items than this."""


@dataclass(frozen=True)
class Feature:
    """Something an application gates: a flag, units that are spent or occupied, or a pool of
    credits that other features draw from."""

    id: str
    name: str
    type: FeatureType
    precision: int = DEFAULT_PRECISION
    """Decimal places kept of every quantity; fixed when the feature is created."""
    display: tuple[str, str] | None = None
    """How one and several units are called in texts: (singular, plural)."""
    credit_schema: tuple[tuple[str, Decimal], ...] = ()
    """Of a credit system: each member's id and what one unit of it costs in credits."""
    event_names: tuple[str, ...] = ()
    archived: bool = False
    created_at: int = field(default=0, compare=False)

    @property
    def is_metered(self) -> bool:
        """Counted in units of its own, so a credit system may have it as a member."""
        return self.type in ("single_use", "continuous_use")


@dataclass(frozen=True)
class Rollover:
    """What becomes of the units that a reset finds unspent: they stay beside the new grant, up to a
    maximum, for a time."""

    max: Decimal | None = None
    """The most units that may be there at once; None, without `max_percentage` too: no maximum."""
    max_percentage: Decimal | None = None
    """The same as a percentage of what is granted, included and bought."""
    duration: RolloverDuration = "month"
    length: int = 1
    """How many months the units of one reset stay; 1 also for ever."""

    def to_json(self) -> dict[str, Any]:
        """What it says, field by field, as 1.2 has it; decimals as text."""
        return {
            name: str(value) if isinstance(value, Decimal) else value
            for name, value in self.fields().items()
        }

    def fields(self) -> dict[str, Any]:
        """What it says, field by field, as 1.2 has it."""
        said = {name: value for name, value in vars(self).items() if value is not None}
        if self.duration == "forever":
            del said["length"]
        return said

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Rollover:
        """The rollover `to_json` wrote."""
        return cls(**{
            name: Decimal(value) if name in ("max", "max_percentage") else value for name, value in stored.items()
        })


@dataclass(frozen=True)
class Item:
    """One line of a plan: a grant of a feature, a fixed price, or a grant with a price."""

    feature_id: str | None = None
    """None: a fixed price."""
    included_usage: Decimal | None = None
    """Units granted (0 if left out of a priced item); None for a flag, a price, or no limit."""
    unlimited: bool = False
    interval: str | None = None
    """None: lifetime (a grant) or one time (a price)."""
    interval_count: int = 1
    entity_feature_id: str | None = None
    """The grant is one for each entity of this feature."""
    price: Decimal | None = None
    """Of a fixed price: its amount. Of a priced feature: the amount per `billing_units`."""
    billing_units: Decimal = Decimal(1)
    usage_model: UsageModel | None = None
    usage_limit: Decimal | None = None
    """The most that can be used in a period: included plus what may be bought."""
    reset_usage_when_enabled: bool = True
    """False: usage follows when a customer switches to the plan of this item."""
    rollover: Rollover | None = None
    """None: what is unspent at a reset is gone."""

    @property
    def type(self) -> Literal["feature", "priced_feature", "price"]:
        if self.feature_id is None:
            return "price"
        return "feature" if self.price is None else "priced_feature"

    @property
    def is_prepaid(self) -> bool:
        return self.usage_model == "prepaid"

    @property
    def is_pay_per_use(self) -> bool:
        return self.usage_model == "pay_per_use"

    def to_json(self) -> dict[str, Any]:
        """The stored form: decimals as text, fields at their default left out."""
        return {
            name: str(value) if isinstance(value, Decimal) else value.to_json() if isinstance(value, Rollover) else value
            for name, value in vars(self).items()
            if value != _ITEM_DEFAULTS[name]
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Item:
        """The item `to_json` wrote."""
        values = {
            name: Decimal(value) if name in _ITEM_DECIMALS and value is not None else value
            for name, value in stored.items()
        }
        if values.get("rollover") is not None:
            values["rollover"] = Rollover.from_json(values["rollover"])
        return cls(**values)


_ITEM_DEFAULTS = vars(Item())
_ITEM_DECIMALS = ("included_usage", "price", "billing_units", "usage_limit")


@dataclass(frozen=True)
class Plan:
    """One version of a plan. Customers hold a version, by its `uid`; a new one leaves theirs be."""

    uid: int = field(compare=False)
    """Never given twice; 0 for a plan that is not stored yet."""
    id: str
    version: int = field(compare=False)
    name: str
    group: str = ""
    is_default: bool = False
    is_add_on: bool = False
    archived: bool = False
    items: tuple[Item, ...] = ()
    free_trial: None = None
    created_at: int = field(default=0, compare=False)
    description: str | None = None
    controls: Controls = NO_CONTROLS
    """What caps the spending of those who hold it, unless their own controls say otherwise."""

    @property
    def is_paid(self) -> bool:
        """It has a price above zero, so attaching it needs a card."""
        return any(item.price for item in self.items)

    @property
    def is_one_off(self) -> bool:
        """It has a price and none recurs: it neither replaces a plan nor is replaced."""
        intervals = [item.interval for item in self.items if item.price is not None]
        return bool(intervals) and not any(intervals)

    def names(self, feature_id: str) -> bool:
        """Whether an item or a control is about this feature."""
        in_items = any(feature_id in (item.feature_id, item.entity_feature_id) for item in self.items)
        return in_items or self.controls.names(feature_id)

    def item_ref(self, index: int) -> int:
        """The number by which a bucket names the item at `index`; see `Catalog.item`."""
        return self.uid * ITEM_REF_UNIT + index + 1
