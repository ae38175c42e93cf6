"""What a catalog file would change in what is stored, field by field, and how to show it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Callable, Iterable, Literal, Mapping, NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text

from .controls import said
from .model import Feature, Item, Plan

Action = Literal["added", "changed", "unchanged"]
_MARKS: dict[Action, tuple[str, str]] = {"added": ("+", "green"), "changed": ("~", "yellow"), "unchanged": ("=", "dim")}


class FieldChange(NamedTuple):
    """A field's value before and after, as texts."""

    path: str
    before: str
    after: str


@dataclass(frozen=True)
class Change:
    """What happens to one feature or plan."""

    kind: Literal["feature", "plan"]
    id: str
    action: Action
    fields: tuple[FieldChange, ...] = ()
    new_version: int = 0
    """Of a plan that customers hold: the version made, which leaves theirs as it is. Else 0."""


@dataclass(frozen=True)
class Diff:
    """Everything a push does, in the file's order. What is stored and not in the file is left
    alone, and only named here."""

    changes: tuple[Change, ...]
    left_alone: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Nothing would change."""
        return all(change.action == "unchanged" for change in self.changes)

    def count(self, action: Action) -> int:
        """How many features and plans this happens to."""
        return sum(change.action == action for change in self.changes)


def compare(
    features: Iterable[Feature], plans: Iterable[Plan],
    stored_features: Mapping[str, Feature], stored_plans: Mapping[str, Plan],
    will_version: Callable[[Plan, Plan], bool], warnings: Iterable[str] = (),
) -> Diff:
    """The difference between what is wanted and what is stored. `will_version` tells whether a
    changed plan gets a new version."""
    changes: list[Change] = []
    named: set[tuple[str, str]] = set()
    for feature in features:
        named.add(("feature", feature.id))
        changes.append(_change("feature", feature.id, stored_features.get(feature.id), feature, _feature_fields))
    for plan in plans:
        named.add(("plan", plan.id))
        old = stored_plans.get(plan.id)
        change = _change("plan", plan.id, old, plan, _plan_fields)
        if change.action == "changed" and old is not None and will_version(old, plan):
            change = Change(change.kind, change.id, change.action, change.fields, old.version + 1)
        changes.append(change)
    left = [f"feature {id_}" for id_ in stored_features if ("feature", id_) not in named]
    left += [f"plan {id_}" for id_ in stored_plans if ("plan", id_) not in named]
    return Diff(tuple(changes), tuple(left), tuple(warnings))


def render(diff: Diff, *, done: bool = False) -> RenderableType:
    """The difference for a terminal: what will happen, or with `done` what did."""
    lines: list[Text] = []
    for change in diff.changes:
        mark, style = _MARKS[change.action]
        version = f" (version {change.new_version}; customers keep theirs)" if change.new_version else ""
        lines.append(Text(f"{mark} {change.kind} {change.id}{version}", style=style))
        lines += [Text(f"    {field.path}: {field.before} → {field.after}") for field in change.fields]
    if diff.left_alone:
        lines.append(Text(f"not in the file, left alone: {', '.join(diff.left_alone)}", style="dim"))
    lines += [Text(f"warning: {warning}", style="yellow") for warning in diff.warnings]
    lines.append(Text(summary(diff, done=done), style="bold"))
    return Group(*lines)


def summary(diff: Diff, *, done: bool = False) -> str:
    """One line: `2 to add, 1 to change, 7 unchanged`."""
    if diff.is_empty:
        return "Nothing to change." if not done else "Nothing changed."
    added, changed = ("added", "changed") if done else ("to add", "to change")
    return f"{diff.count('added')} {added}, {diff.count('changed')} {changed}, {diff.count('unchanged')} unchanged"


def _change(
    kind: Literal["feature", "plan"], id_: str, old: Any, new: Any, fields: Callable[[Any], dict[str, Any]]
) -> Change:
    if old is None:
        return Change(kind, id_, "added")
    if old == new:
        return Change(kind, id_, "unchanged")
    before, after = fields(old), fields(new)
    paths = [*before, *(path for path in after if path not in before)]
    return Change(kind, id_, "changed", tuple(
        FieldChange(path, _shown(before.get(path)), _shown(after.get(path)))
        for path in paths if before.get(path) != after.get(path)
    ))


def _feature_fields(feature: Feature) -> dict[str, Any]:
    flat: dict[str, Any] = {name: getattr(feature, name) for name in ("name", "type", "precision", "archived")}
    flat["display"] = " / ".join(feature.display) if feature.display else None
    flat["event_names"] = ", ".join(feature.event_names) or None
    flat.update((f"credit_schema.{member}", cost) for member, cost in feature.credit_schema)
    return flat


def _plan_fields(plan: Plan) -> dict[str, Any]:
    names = ("name", "description", "group", "is_default", "is_add_on", "archived")
    flat: dict[str, Any] = {name: getattr(plan, name) for name in names}
    for i, item in enumerate(plan.items):
        flat.update((f"items[{i}].{name}", value) for name, value in _item_fields(item).items())
    for list_name, entries in plan.controls.lists().items():
        for i, entry in enumerate(entries):
            path = f"billing_controls.{list_name}[{i}]"
            flat.update((f"{path}.{name}", value) for name, value in _flat(said(entry)).items())
    return flat


def _item_fields(item: Item) -> dict[str, Any]:
    fields = {name: value for name, value in vars(item).items() if name != "unlimited" and value is not None}
    if item.unlimited:
        fields["included_usage"] = "inf"
    if item.rollover is not None:
        fields["rollover"] = item.rollover.fields()
    return _flat(fields)


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, those of an object within each by a path of its own."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat.update((f"{name}.{inner}", part) for inner, part in value.items())
        else:
            flat[name] = value
    return flat


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
