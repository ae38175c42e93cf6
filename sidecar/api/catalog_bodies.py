"""Bodies that describe features and plans, of any API version, read into the catalog's own values.

There is one validation (`catalog.validate`), which knows the fields of 1.2. A body of 2.x is put in
those terms first, and what is wrong with it is told in its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Mapping

from ..catalog.control_fields import FIELD as CONTROLS_FIELD
from ..catalog.fields import Fields, Problem, Problems
from ..catalog.items import INTERVAL_NAMES
from ..catalog.model import Feature, Item, Plan
from ..catalog.rollovers import ROLLOVER_FIELDS
from ..catalog.validate import read_feature, read_plan
from ..errors import NotSupported
from . import fields
from .balance_views_v2 import ONE_OFF
from .catalog_views_v2 import ROLLOVER_NAMES

Version = tuple[int, int]
FEATURE_TYPES = ("boolean", "metered", "credit_system", "ai_credit_system")
UNBUILT_PLAN = (
    "licenses", "config", "metadata", "base_plan_id", "update_variant_ids", "update_license_parents",
    "disable_version", "force_version", "all_versions", "is_default",
)
UNBUILT_ITEM = ("pooled", "proration")
_ITEM_PATH = re.compile(r"items\[(\d+)\](?:\.(.+))?")


@dataclass(frozen=True)
class Names:
    """What a version of 2.x calls some fields of a plan."""

    items: str
    included: str
    default: str
    method: str
    methods: Mapping[str, str]


V20 = Names("features", "granted_balance", "default", "usage_model", {"prepaid": "prepaid", "pay_per_use": "pay_per_use"})
V21 = Names("items", "included", "auto_enable", "billing_method", {"prepaid": "prepaid", "usage_based": "pay_per_use"})


def feature_of(raw: dict[str, Any], version: Version, problems: Problems, base: Feature | None) -> Feature | None:
    """The feature that a body describes, fields left out being those of `base`; None if there is a
    problem. Raises ApiError 400 `not_supported`."""
    if version >= (2, 0):
        if raw.get("new_feature_id") not in (None, raw.get("feature_id"), base.id if base else None):
            raise NotSupported("new_feature_id", "an id cannot be changed; make a new feature and archive this one")
        raw = _feature_fields(Fields(raw, "", problems), base)
        if problems:
            return None
    return read_feature(raw, problems, base=base, keep=True)


def plan_of(
    raw: dict[str, Any], version: Version, features: Mapping[str, Feature], problems: Problems, base: Plan | None
) -> Plan | None:
    """The plan that a body describes, fields left out being those of `base`; None if there is a
    problem. Raises ApiError 400 `not_supported`."""
    if version < (2, 0):
        return read_plan(raw, features, problems, base=base, keep=True)
    fields.refuse_unbuilt(raw, UNBUILT_PLAN)
    if raw.get("new_plan_id") not in (None, raw.get("plan_id"), base.id if base else None):
        raise NotSupported("new_plan_id", "an id cannot be changed; make a new plan and archive this one")
    if raw.get("version") not in (None, base.version if base else None):
        raise NotSupported("version", "only the newest version of a plan can be changed")
    body = _PlanBody(raw, V21 if version >= (2, 1) else V20, features, problems, base)
    plan_fields = body.read()
    if problems:
        return None
    found = Problems()
    plan = read_plan(plan_fields, features, found, base=base, keep=True)
    problems += [body.named(problem) for problem in found]
    return plan


def _feature_fields(f: Fields, base: Feature | None) -> dict[str, Any]:
    """A feature's fields in terms of 1.2."""
    kind, consumable = f.choice("type", FEATURE_TYPES), f.flag("consumable")
    if kind == "ai_credit_system":
        f.unsupported("type", "ai_credit_system is not supported yet")
    if f.given("default_markup"):
        f.unsupported("default_markup")
    known = base.type if base and base.is_metered else None
    if kind == "metered" or kind is None and known:
        if consumable is None and known is None:
            f.wrong("consumable", "is required for a metered feature: true for units that are spent, false for seats and the like")
        kind = known if consumable is None else "single_use" if consumable else "continuous_use"
    return {**f.raw, "type": kind}


class _PlanBody:
    """A plan's body of 2.x: its fields in terms of 1.2, and the way back for what is wrong."""

    def __init__(self, raw: Any, names: Names, features: Mapping[str, Feature], problems: Problems, base: Plan | None):
        self._plan = Fields(raw, "", problems)
        self._names = names
        self._features = features
        self._base = base.items if base else ()
        self._paths: list[str] = []

    def read(self) -> dict[str, Any]:
        """The fields in terms of 1.2; what is wrong with their form is noted."""
        given = self._plan.raw
        known = ("id", "name", "description", "group", "archived", "free_trial", CONTROLS_FIELD)
        told = {name: given[name] for name in known if name in given}
        for name, old in (("add_on", "is_add_on"), (self._names.default, "is_default")):
            if name in given:
                told[old] = self._plan.flag(name)
        entries = self._plan.objects(self._names.items)
        if "price" not in given and entries is None:
            return told
        items = [_raw(item) for item in self._base if item.feature_id is not None]
        if entries is not None:
            items = [(self._item(entry), entry.path) for entry in entries]
        prices = [_raw(item) for item in self._base if item.feature_id is None]
        if "price" in given:
            prices = [(self._price(), "price")] if given["price"] is not None else []
        at = next((index for index, item in enumerate(self._base) if item.feature_id is None), 0)
        ordered = [*items[:at], *prices, *items[at:]]  # a price stays where it was, so that nothing seems changed
        told["items"] = [fields for fields, _ in ordered]
        self._paths = [path for _, path in ordered]
        return told

    def named(self, problem: Problem) -> Problem:
        """The problem by the names that the body has."""
        found = _ITEM_PATH.match(problem.path)
        if found is None:
            top = {"is_default": self._names.default, "is_add_on": "add_on", "items": self._names.items}
            return replace(problem, path=top.get(problem.path, problem.path))
        path, name = self._paths[int(found[1])], found[2]
        inside = {"price": "amount", "interval": "interval", "interval_count": "interval_count"}
        if path != "price":
            inside = {
                "included_usage": self._names.included, "price": "price.amount", "usage_limit": "price.max_purchase",
                "billing_units": "price.billing_units", "usage_model": f"price.{self._names.method}",
                "interval": "reset.interval", "interval_count": "reset.interval_count",
                **{f"rollover.{old}": f"rollover.{new}" for old, new in ROLLOVER_NAMES.items()},
            }
        return replace(problem, path=f"{path}.{inside.get(name, name)}" if name else path)

    def _price(self) -> dict[str, Any]:
        price = self._part(self._plan, "price")
        if price is None:
            return {}
        if price.is_object and not price.given("amount"):
            price.wrong("amount", "is required")
        return {"price": price.raw.get("amount"), **dict(zip(("interval", "interval_count"), _interval(price)))}

    def _item(self, i: Fields) -> dict[str, Any]:
        """An item's fields in terms of 1.2."""
        for name in UNBUILT_ITEM:
            if not fields.asks_nothing(i.raw.get(name)):
                i.unsupported(name)
        if i.is_object and not i.given("feature_id"):
            i.wrong("feature_id", "is required")
        reset, price = self._part(i, "reset"), self._part(i, "price")
        cycles = [_interval(part) for part in (reset, price) if part is not None]
        if len(set(cycles)) > 1:
            i.unsupported("reset", "another interval than that of the price is not supported yet")
        interval, count = cycles[0] if cycles else (None, 1)
        told = {"feature_id": i.raw.get("feature_id"), "interval": interval, "interval_count": count}
        if i.given("entity_feature_id"):
            told["entity_feature_id"] = i.raw["entity_feature_id"]
        if i.given("rollover"):
            told["rollover"] = _rollover(i.raw["rollover"])
        told["reset_usage_when_enabled"] = self._starts_fresh(told, reset)
        included = self._included(i, price)
        if included is not None:
            told["included_usage"] = included
        if price is not None:
            told.update(self._usage_price(price, included))
        return told

    def _included(self, i: Fields, price: Fields | None) -> Any:
        name = self._names.included
        included, unlimited = i.number(name), i.flag("unlimited")
        feature_id = i.raw.get("feature_id")
        feature = self._features.get(feature_id) if isinstance(feature_id, str) else None
        if unlimited:
            if included or price is not None:
                i.wrong("unlimited", f"does not go with {name} or a price; leave one of them out")
            return "inf"
        if feature is not None and feature.type == "boolean":
            return included or None
        return included if included is not None or price is not None else 0

    def _usage_price(self, price: Fields, included: Any) -> dict[str, Any]:
        if price.raw.get("tiers"):
            price.unsupported("tiers", "prices in tiers are not supported yet; give one price")
        elif price.is_object and not price.given("amount"):
            price.wrong("amount", "is required")
        method = price.choice(self._names.method, tuple(self._names.methods))
        if price.is_object and not price.given(self._names.method):
            price.wrong(self._names.method, f"is required: one of {', '.join(self._names.methods)}")
        told = {"price": price.raw.get("amount"), "usage_model": self._names.methods.get(method or "")}
        if price.given("billing_units"):
            told["billing_units"] = price.raw["billing_units"]
        most = price.number("max_purchase")
        if most is not None:
            told["usage_limit"] = most + (included if isinstance(included, (int, Decimal)) else 0)
            if most < 0:
                price.wrong("max_purchase", f"must be 0 or more, got {most}")
        return told

    def _starts_fresh(self, told: Mapping[str, Any], reset: Fields | None) -> bool | None:
        """2.0 says it with the reset; later versions cannot, so an item keeps what it has."""
        if self._names is V20 and reset is not None and reset.given("reset_when_enabled"):
            return reset.flag("reset_when_enabled")
        key = tuple(told.get(name) for name in ("feature_id", "entity_feature_id", "interval"))
        for item in self._base:
            if (item.feature_id, item.entity_feature_id, item.interval) == key:
                return item.reset_usage_when_enabled
        return True

    def _part(self, owner: Fields, name: str) -> Fields | None:
        """The object that a field holds."""
        if not owner.given(name):
            return None
        return Fields(owner.raw[name], f"{owner.path}.{name}" if owner.path else name, owner.problems)


def _interval(part: Fields) -> tuple[str | None, int]:
    """The interval that a reset or a price states, None for one-off, and its count."""
    if part.is_object and not part.given("interval"):
        part.wrong("interval", "is required")
    interval = part.choice("interval", (ONE_OFF, *INTERVAL_NAMES))
    count = part.integer("interval_count", 1, 10**9) or 1
    return (None, 1) if interval == ONE_OFF else (interval, count)


def _rollover(raw: Any) -> Any:
    """A rollover in terms of 1.2; what is no object is left as it is, to be told so."""
    if not isinstance(raw, dict):
        return raw
    return {name: raw.get(ROLLOVER_NAMES.get(name, name)) for name in ROLLOVER_FIELDS}


def _raw(item: Item) -> tuple[dict[str, Any], str]:
    """A stored item as a body of 1.2 has it."""
    raw = {name: value for name, value in vars(item).items() if value is not None and name != "unlimited"}
    if item.unlimited:
        raw["included_usage"] = "inf"
    if item.rollover is not None:
        raw["rollover"] = item.rollover.fields()
    if item.feature_id is None or item.price is None:
        del raw["billing_units"]
    return raw, "price" if item.feature_id is None else "items"
