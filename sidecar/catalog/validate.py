"""The one validation of features and plans, for the API and for files alike.

Readers take decoded input (numbers as int or Decimal) and give the model's values; what is wrong
goes into `problems`, each with a path such as `items[2].interval` and what to do. `base` is what
is stored under the same id: with `keep` a field that is left out stays as it is there, without it
falls back to its default. `strict` (files) refuses unknown fields, which the API ignores.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Iterable, Mapping

from ..domain.quantities import QuantityError, fraction
from .control_fields import FIELD as CONTROLS_FIELD, read_controls
from .controls import NO_CONTROLS
from .fields import Fields, Problems, canonical, join
from .items import read_item
from .model import DEFAULT_PRECISION, FEATURE_TYPES, PRECISION_MAX, Feature, Item, Plan

ITEMS_MAX = 200
COSTLY_LAST_PLACE = Decimal("0.001")

FEATURE_FIELDS = ("id", "name", "type", "display", "credit_schema", "event_names", "precision", "archived")
PLAN_FIELDS = (
    "id", "name", "description", "group", "is_default", "is_add_on", "items", "free_trial", "archived", CONTROLS_FIELD,
)


def read_feature(
    raw: Any, problems: Problems, *, base: Feature | None = None, keep: bool = False, strict: bool = False
) -> Feature | None:
    """The feature that `raw` describes, or None if there is a problem."""
    before = len(problems)
    f = Fields(raw, "", problems)
    if strict:
        f.only(FEATURE_FIELDS)
    old = base if keep else None
    feature_id = f.identifier("id") or (base.id if base else None)
    kind = "boolean" if f.raw.get("type") == "static" else f.choice("type", FEATURE_TYPES)
    kind = kind or (old.type if old else None)
    if feature_id is None and not f.given("id"):
        f.wrong("id", "is required")
    if kind is None and not f.given("type"):
        f.wrong("type", f"is required: one of {', '.join(FEATURE_TYPES)}")
    stored = base.precision if base else None
    precision = f.integer("precision", 0, PRECISION_MAX)
    if precision is not None and stored is not None and precision != stored:
        f.wrong("precision", f"is {stored} since the feature was created and cannot change; make a new feature")
    schema = _credit_schema(f, strict)
    if schema is None:
        schema = old.credit_schema if old and kind == "credit_system" else ()
    elif schema and kind not in ("credit_system", None):
        f.wrong("credit_schema", f"belongs to a credit_system, not to a {kind} feature")
    display = _display(f, strict)
    if display is None and old and not f.has("display"):
        display = old.display
    events = f.texts("event_names")
    archived = f.flag("archived")
    name = f.text("name")
    if len(problems) > before:
        return None
    assert feature_id is not None and kind is not None
    return Feature(
        id=feature_id,
        name=name or (old.name if old else feature_id),
        type=kind,  # type: ignore[arg-type]
        precision=next(p for p in (stored, precision, DEFAULT_PRECISION) if p is not None),
        display=display,
        credit_schema=schema,
        event_names=events if events is not None else (old.event_names if old else ()),
        archived=archived if archived is not None else bool(old and old.archived),
        created_at=base.created_at if base else 0,
    )


def check_schema(
    system: Feature, features: Mapping[str, Feature], problems: Problems, *, unknown_is_wrong: bool
) -> None:
    """Holds a credit system's members against the features there are. A member that does not
    exist is a problem only if `unknown_is_wrong`: through the API it may come a moment later."""
    for i, (member_id, cost) in enumerate(system.credit_schema):
        at = f"credit_schema[{i}]"
        member = features.get(member_id)
        if member is None:
            if unknown_is_wrong:
                problems.add(join(at, "metered_feature_id"), f"there is no feature {member_id!r}; add it, or remove this member")
        elif not member.is_metered:
            problems.add(
                join(at, "metered_feature_id"),
                f"{member_id!r} is a {member.type} feature; a member must be single_use or continuous_use",
            )
        else:
            try:
                fraction(cost, system.precision, member.precision)
            except QuantityError as problem:
                problems.add(join(at, "credit_cost"), str(problem))


def read_plan(
    raw: Any, features: Mapping[str, Feature], problems: Problems, *,
    base: Plan | None = None, keep: bool = False, strict: bool = False,
) -> Plan | None:
    """The plan that `raw` describes over these features, or None if there is a problem. It is not
    stored yet: its uid and version are those of `base`, or 0."""
    before = len(problems)
    p = Fields(raw, "", problems)
    if strict:
        p.only(PLAN_FIELDS)
    old = base if keep else None
    plan_id = p.identifier("id") or (base.id if base else None)
    name = p.text("name") or (old.name if old else None)
    if plan_id is None and not p.given("id"):
        p.wrong("id", "is required")
    if name is None and not p.given("name"):
        p.wrong("name", "is required")
    if p.raw.get("name") == "":
        p.wrong("name", "must not be empty")
    group = p.identifier("group") if p.raw.get("group") != "" else ""
    description = p.text("description")
    flags = {name: p.flag(name) for name in ("is_default", "is_add_on", "archived")}
    if p.given("free_trial"):
        p.unsupported("free_trial")
    entries = p.objects("items")
    items: tuple[Item | None, ...] = old.items if old and entries is None else ()
    if entries is not None and len(entries) > ITEMS_MAX:
        p.wrong("items", f"must be at most {ITEMS_MAX}, got {len(entries)}")
    elif entries is not None:
        items = tuple(read_item(entry, features, strict) for entry in entries)
    controls = read_controls(p, features, old.controls if old else NO_CONTROLS, strict=strict)
    if len(problems) > before:
        return None
    assert plan_id is not None and name is not None
    plan = Plan(
        uid=base.uid if base else 0,
        version=base.version if base else 0,
        id=plan_id,
        name=name,
        group=(group or "") if p.has("group") or not old else old.group,
        items=items,  # type: ignore[arg-type]
        created_at=base.created_at if base else 0,
        description=description if p.has("description") or not old else old.description,
        controls=controls,
        **{key: value if value is not None else bool(old and getattr(old, key)) for key, value in flags.items()},
    )
    if plan.is_default and plan.is_paid:
        p.wrong("is_default", "a plan with a price needs a card, so new customers cannot start on it; make it false, or the plan free")
        return None
    if plan.is_default and any(item.is_prepaid for item in plan.items):
        p.wrong("is_default", "a prepaid item needs a quantity, which new customers have not chosen; make it false")
        return None
    return plan


def warnings(features: Iterable[Feature], plans: Iterable[Plan]) -> list[str]:
    """What is allowed and yet probably not meant."""
    found: list[str] = []
    by_id = {feature.id: feature for feature in features}
    for system in by_id.values():
        for member_id, cost in system.credit_schema:
            member = by_id.get(member_id)
            if member is not None and cost.scaleb(-member.precision) > COSTLY_LAST_PLACE:
                found.append(
                    f"{system.id}: the last decimal place of {member_id} (precision {member.precision}) costs "
                    f"{canonical(cost.scaleb(-member.precision))} credits; a higher precision would round less"
                )
    default_of: dict[str, str] = {}
    for plan in plans:
        if plan.is_default and not plan.archived:
            first = default_of.setdefault(plan.group, plan.id)
            if first != plan.id:
                found.append(f"plans {first} and {plan.id} are both default in group {plan.group!r}: new customers get the older one only")
    return found


def _credit_schema(f: Fields, strict: bool) -> tuple[tuple[str, Decimal], ...] | None:
    entries = f.objects("credit_schema")
    if entries is None:
        return None
    members: dict[str, Decimal] = {}
    for entry in entries:
        if strict:
            entry.only(("metered_feature_id", "credit_cost"))
        member, cost = entry.identifier("metered_feature_id"), entry.number("credit_cost")
        for name in ("metered_feature_id", "credit_cost"):
            if entry.is_object and not entry.given(name):
                entry.wrong(name, "is required")
        if cost is not None and cost < 0:
            entry.wrong("credit_cost", f"must be 0 or more, got {cost}")
        elif cost is not None and (abs(cost.adjusted()) > 18 or len(cost.as_tuple().digits) > 28):
            entry.wrong("credit_cost", f"{cost} cannot be kept exactly; use fewer digits")
        elif member in members:
            entry.wrong("metered_feature_id", f"{member!r} is listed twice")
        elif member is not None and cost is not None:
            members[member] = canonical(cost)
    return tuple(members.items())


def _display(f: Fields, strict: bool) -> tuple[str, str] | None:
    if not f.given("display"):
        return None
    display = Fields(f.raw["display"], join(f.path, "display"), f.problems)
    if strict:
        display.only(("singular", "plural"))
    names = display.text("singular"), display.text("plural")
    for name, value in zip(("singular", "plural"), names):
        if display.is_object and value is None and not display.given(name):
            display.wrong(name, "is required")
    return names if None not in names else None  # type: ignore[return-value]
