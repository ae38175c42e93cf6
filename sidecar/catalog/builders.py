"""Builders for a catalog written as a Python file:

    from sidecar.catalog.builders import feature, feature_item, product

    messages = feature(id="messages", name="Messages", type="single_use")
    free = product(id="free", name="Free", is_default=True, items=[
        feature_item(feature_id=messages, included_usage=10, interval="month"),
    ])

What a module-level name (or a list or dict at module level) holds is exported. Each result
remembers the line of its call, for errors; where an id is meant, the feature itself does too.
Floats are read by their shortest decimal: 0.1 is exactly one tenth.
"""

from __future__ import annotations

import math
import sys
from decimal import Decimal
from typing import Any, Literal


class Definition(dict[str, Any]):
    """The fields given to a builder, and where it was called."""

    def __init__(self, kind: Literal["feature", "plan", "item"], fields: dict[str, Any]):
        super().__init__({name: _plain(value) for name, value in fields.items()})
        self.kind = kind
        frame = sys._getframe(2)  # the caller of the builder
        self.file, self.line = frame.f_code.co_filename, frame.f_lineno

    @property
    def id(self) -> Any:
        """The id, to be used where another definition refers to this one."""
        return self.get("id")


def feature(**fields: Any) -> Definition:
    """A feature: `id`, `name`, `type` (boolean, single_use, continuous_use, credit_system),
    `display`, `credit_schema`, `event_names`, `precision`."""
    return Definition("feature", fields)


def product(**fields: Any) -> Definition:
    """A plan: `id`, `name`, `items`, `is_default`, `is_add_on`, `group`, `description`,
    `billing_controls` (lists `spend_limits`, `usage_limits`, `overage_allowed`, `usage_alerts`,
    `auto_topups`)."""
    return Definition("plan", fields)


plan = product


def feature_item(**fields: Any) -> Definition:
    """A grant: `feature_id`, `included_usage` (a number or "inf"; not for boolean features),
    `interval` (left out: lifetime), `interval_count`, `entity_feature_id`,
    `reset_usage_when_enabled`, `rollover` (`max` or `max_percentage`, `duration`, `length`)."""
    return Definition("item", {"type": "feature", **fields})


def priced_feature_item(**fields: Any) -> Definition:
    """A grant with a price: as `feature_item`, and `price` per `billing_units` (1),
    `usage_model` (pay_per_use, or prepaid), `usage_limit`."""
    return Definition("item", {"type": "priced_feature", **fields})


def price_item(**fields: Any) -> Definition:
    """A fixed price: `price`, `interval` (left out: one time), `interval_count`."""
    return Definition("item", {"type": "price", **fields})


def _plain(value: Any) -> Any:
    if isinstance(value, Definition) and value.kind == "feature":
        return value.id  # a feature where its id is meant
    if isinstance(value, float):
        return Decimal(repr(value)) if math.isfinite(value) else ("inf" if value > 0 else repr(value))
    if isinstance(value, dict) and not isinstance(value, Definition):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
