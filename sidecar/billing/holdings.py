"""What a customer holds by SQL: the plans, and the buckets that these and decided steps make.

SQL's buckets stand as of the applied version; what is decided and not yet applied is in the outbox.
`Holdings` is both together, so a plan is never built on half of it. Balances here may be behind:
nothing may be computed from them, the scripts move live ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Iterable, Mapping, Sequence

from ..catalog.model import Plan
from ..catalog.snapshot import Catalog
from ..domain.layout import Row
from .prices import keeps_cycle


@dataclass(frozen=True)
class HeldPlan:
    """A plan that a customer, or one of its entities, holds now. `plan` is the version held."""

    uid: int
    plan: Plan
    entity_id: str
    """'' when the customer itself holds it."""
    options: Mapping[str, str]
    started_at: int
    anchor: int


@dataclass(frozen=True)
class HeldBucket:
    """A bucket by its number, with the plan holding it; the row's balance is not live."""

    feature_id: str
    customer_plan_uid: int
    row: Row
    archived: bool = False
    """It is used up and left the hot state."""


@dataclass(frozen=True)
class Holdings:
    """One customer's plans and buckets."""

    plans: tuple[HeldPlan, ...] = ()
    buckets: tuple[HeldBucket, ...] = ()
    entities: Mapping[str, int] = field(default_factory=dict)
    """How many entities of each feature there are."""

    def main_plan(self, group: str, entity_id: str) -> HeldPlan | None:
        """The plan that another one of this group would replace, for the customer (entity '') or
        one of its entities. Add-ons and one-off plans are never replaced."""
        for held in self.plans:
            plan = held.plan
            if held.entity_id == entity_id and plan.group == group and not plan.is_add_on and not plan.is_one_off:
                return held
        return None

    def buckets_of(self, held: HeldPlan) -> tuple[HeldBucket, ...]:
        """The buckets that came with a held plan."""
        return tuple(bucket for bucket in self.buckets if bucket.customer_plan_uid == held.uid)

    def granted(self, feature_id: str) -> int:
        """The sum of the grants of a feature, scaled."""
        return sum(bucket.row.granted for bucket in self.buckets if bucket.feature_id == feature_id)


def cycle_anchor(replaced: HeldPlan | None, plan: Plan, now_ms: int) -> int:
    """What the cycle of a plan enabled now in place of `replaced` counts from."""
    return replaced.anchor if replaced is not None and keeps_cycle(replaced.plan, plan) else now_ms


def after_steps(buckets: Iterable[HeldBucket], steps: Iterable[Mapping[str, Any]]) -> tuple[HeldBucket, ...]:
    """The buckets after the decided steps that SQL's buckets do not have yet, oldest step first."""
    held = {bucket.row.no: bucket for bucket in buckets}
    for step in steps:
        for op in step["ops"]:
            if op[0] == "add":
                row = Row(*op[2])
                held[row.no] = HeldBucket(op[1], op[5], row)
            elif op[0] == "left":  # if anything is
                row = Row(*op[4])
                held[row.no] = HeldBucket(op[1], 0, row)
            elif op[0] in ("archive", "restore"):
                for no in op[3] if op[0] == "archive" else [row[0] for row in op[2]]:
                    if no in held:
                        held[no] = replace(held[no], archived=op[0] == "archive")
            elif op[0] == "drop":
                dropped = held.pop(op[2], None)
                if dropped is not None and op[4:5] == [1] and not any(b.feature_id == op[1] for b in held.values()):
                    # its usage has nowhere to go, and stays
                    held[op[2]] = _with(dropped, granted=0, prepaid=0, interval=0, next_reset_at=0, anchor=0)
            elif op[0] == "grant" and op[3] in held:
                held[op[3]] = _with(held[op[3]], granted=op[4] + held[op[3]].row.prepaid)
            elif op[0] == "dates" and op[3] in held:
                dates = {"next_reset_at": op[4], "anchor": op[4], "expires_at": op[5]}
                held[op[3]] = _with(held[op[3]], **{name: at for name, at in dates.items() if at >= 0})
            elif op[0] == "unentity":
                held = {no: bucket for no, bucket in held.items() if bucket.row.entity_id != op[1]}
            elif op[0] == "delete":
                held.clear()
    return tuple(held.values())


def _with(bucket: HeldBucket, **columns: int) -> HeldBucket:
    return replace(bucket, row=bucket.row._replace(**columns))


def held_plans(catalog: Catalog, rows: Sequence[Mapping[str, Any]]) -> tuple[HeldPlan, ...]:
    """The active plans among `customer_plans` rows, oldest first."""
    return tuple(
        HeldPlan(
            row["uid"], catalog.plans_by_uid[row["plan_uid"]], row["entity_id"] or "", row["options"],
            row["started_at"], row["anchor"],
        )
        for row in sorted(rows, key=lambda row: row["uid"])
        if row["ended_at"] is None
    )
