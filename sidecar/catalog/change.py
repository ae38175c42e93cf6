"""Changes of one feature or plan, for the API and for push: validated against everything that is
stored, inside the write transaction that makes them. Make an `Editor`, end with `finish`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Collection

from sqlalchemy import Connection

from . import repository
from .fields import Problems
from .model import Feature, Plan
from .snapshot import read_catalog
from .validate import check_schema


class Editor:
    """The catalog as it stands in this transaction, and the changes made to it so far. One that
    is not `writing` only looks, and may be made in a snapshot."""

    def __init__(self, conn: Connection, now_ms: int, writing: bool = True):
        self.conn = conn
        self.now_ms = now_ms
        if writing:
            repository.begin_change(conn)
        stored = read_catalog(conn)
        self.features = dict(stored.features)
        self.plans = dict(stored.plans)
        self.by_uid = dict(stored.plans_by_uid)
        self.version = stored.version
        self.changed = False

    def finish(self) -> int:
        """The catalog's version after this transaction; a new one if anything changed."""
        if self.changed:
            self.version = repository.end_change(self.conn)
            self.changed = False
        return self.version

    def check_feature(self, feature: Feature, problems: Problems, unknown_is_wrong: bool, replaced: Collection[str] = ()) -> None:
        """Holds a feature about to be stored against the features, plans and customers there are.
        `replaced` names plans that are about to be replaced, which it need not suit."""
        old = self.features.get(feature.id)
        after = {**self.features, feature.id: feature}
        check_schema(feature, after, problems, unknown_is_wrong=unknown_is_wrong)
        if old is not None and old.type != feature.type:
            self._check_type(old, feature, problems, replaced)
        if old is None or old.type != feature.type:
            self._check_systems(feature, after, problems)

    def put_feature(self, feature: Feature) -> Feature:
        """Stores a feature, new or changed; the same as stored changes nothing."""
        old = self.features.get(feature.id)
        if old == feature:
            return old
        if old is None:
            feature = repository.insert_feature(self.conn, feature, self.now_ms)
        else:
            feature = replace(feature, created_at=old.created_at)
            repository.update_feature(self.conn, feature)
        self.features[feature.id] = feature
        self.changed = True
        return feature

    def put_plan(self, plan: Plan) -> Plan:
        """Stores a plan, new or changed: a new version if customers hold the one there is."""
        old = self.plans.get(plan.id)
        if old == plan:
            return old
        if old is None:
            plan = repository.insert_plan(self.conn, plan, self.now_ms)
        else:
            plan = repository.update_plan(self.conn, old, plan, self.now_ms)
        self.plans[plan.id] = self.by_uid[plan.uid] = plan
        self.changed = True
        return plan

    def will_version(self, old: Plan, new: Plan) -> bool:
        """Whether `put_plan` would make a new version."""
        return repository.will_version(self.conn, old, new, self.now_ms)

    def users_of(self, feature_id: str) -> list[str]:
        """What in the catalog names this feature: plans (any version) and credit systems."""
        plans = {
            f"plan {plan.id}" for plan in self.by_uid.values()
            if plan.names(feature_id)
        }
        systems = {
            f"credit system {feature.id}" for feature in self.features.values()
            if any(member == feature_id for member, _ in feature.credit_schema)
        }
        return sorted(plans) + sorted(systems)

    def remove_feature(self, feature_id: str) -> None:
        """Removes a feature that nothing names."""
        repository.delete_feature(self.conn, feature_id)
        del self.features[feature_id]
        self.changed = True

    def remove_plan(self, plan: Plan, all_versions: bool) -> None:
        """Removes a plan's newest version, or all of them."""
        repository.delete_plan(self.conn, plan.id, None if all_versions else plan.version)
        self.changed = True

    def _check_type(self, old: Feature, new: Feature, problems: Problems, replaced: Collection[str]) -> None:
        if repository.feature_is_held(self.conn, old.id):
            problems.add("type", f"is {old.type}, and customers hold it so; make a new feature")
            return
        latest = {plan.uid for plan in self.plans.values() if plan.id in replaced}
        for plan in self.by_uid.values():
            if plan.names(new.id) and plan.uid not in latest:
                problems.add("type", f"is {old.type}, and plan {plan.id} has it so; take it out of the plan first, or make a new feature")
                return

    def _check_systems(self, feature: Feature, after: dict[str, Feature], problems: Problems) -> None:
        """A feature that comes after a credit system that names it must suit it."""
        for system in self.features.values():
            if system.id == feature.id or all(member != feature.id for member, _ in system.credit_schema):
                continue
            found = Problems()
            only = tuple(pair for pair in system.credit_schema if pair[0] == feature.id)
            check_schema(replace(system, credit_schema=only), after, found, unknown_is_wrong=False)
            for problem in found:
                field = "precision" if feature.is_metered else "type"
                problems.add(field, f"does not suit credit system {system.id!r}, which names this feature: {problem.message}")


