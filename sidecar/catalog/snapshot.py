"""The whole catalog as one immutable value, and the cache that keeps the newest one in memory.

Calls read `cache.current` without waiting; SQL is asked for the version number a few times a
second, and for the catalog only when that has changed.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Iterable, Mapping, NamedTuple

import structlog
from sqlalchemy import Connection

from ..domain.quantities import fraction
from ..store.db import Store
from . import repository
from .model import ITEM_REF_UNIT, Feature, Item, Plan

log = structlog.get_logger()


class System(NamedTuple):
    """A credit system that pays for a member: u scaled units of the member cost ⌈u·n/d⌉ scaled
    credits, n/d being reduced."""

    feature_id: str
    n: int
    d: int


@dataclass(frozen=True)
class Catalog:
    """Every feature and plan at one version of the catalog. Features and plans come in the order
    of their creation, archived ones included."""

    version: int = 0
    features: Mapping[str, Feature] = field(default_factory=dict)
    plans: Mapping[str, Plan] = field(default_factory=dict)
    """The latest version of each plan, by id."""
    plans_by_uid: Mapping[int, Plan] = field(default_factory=dict)
    """Every version of every plan."""

    @classmethod
    def of(cls, version: int, features: Iterable[Feature], plans: Iterable[Plan]) -> Catalog:
        """The catalog of these features and plans (all versions), in whatever order."""
        by_age = sorted(plans, key=lambda plan: (plan.created_at, plan.id, plan.version))
        latest: dict[str, Plan] = {}
        for plan in by_age:
            known = latest.get(plan.id)
            if known is None or known.version < plan.version:
                latest[plan.id] = plan
        return cls(
            version=version,
            features={f.id: f for f in sorted(features, key=lambda f: (f.created_at, f.id))},
            plans=latest,
            plans_by_uid={plan.uid: plan for plan in by_age},
        )

    @cached_property
    def systems_of(self) -> Mapping[str, tuple[System, ...]]:
        """The credit systems that pay for each member, in the order of their creation. A member
        that does not exist yet, or is not metered, takes no part."""
        systems: dict[str, tuple[System, ...]] = {}
        for system in self.features.values():
            if system.type != "credit_system":
                continue
            for member_id, cost in system.credit_schema:
                member = self.features.get(member_id)
                if member is not None and member.is_metered:
                    n, d = fraction(cost, system.precision, member.precision)
                    systems[member_id] = (*systems.get(member_id, ()), System(system.id, n, d))
        return systems

    @cached_property
    def call_plans(self) -> dict[tuple[str, ...], Any]:
        """What the engine worked out about calls of these features, kept with the catalog it was
        worked out from."""
        return {}

    @cached_property
    def answer_templates(self) -> dict[str, Any]:
        """What is kept ready of answers, by what it is of; it goes with the catalog it was made from."""
        return {}

    @cached_property
    def features_of_event(self) -> Mapping[str, tuple[str, ...]]:
        """The features each event name feeds, in the order of their creation."""
        fed: dict[str, tuple[str, ...]] = {}
        for feature in self.features.values():
            for name in feature.event_names:
                fed[name] = (*fed.get(name, ()), feature.id)
        return fed

    @cached_property
    def default_plans(self) -> tuple[Plan, ...]:
        """The plans a new customer gets: of each group's defaults the one created first."""
        chosen: dict[str, Plan] = {}
        for plan in self.plans.values():
            if plan.is_default and not plan.archived:
                chosen.setdefault(plan.group, plan)
        return tuple(chosen.values())

    def item(self, ref: int) -> Item | None:
        """The item a bucket names by `Plan.item_ref`, or None if its plan is gone."""
        uid, number = divmod(ref, ITEM_REF_UNIT)
        plan = self.plans_by_uid.get(uid)
        return plan.items[number - 1] if plan is not None and 0 < number <= len(plan.items) else None


def read_catalog(conn: Connection) -> Catalog:
    """The catalog in SQL, read in the caller's transaction."""
    return Catalog.of(repository.version(conn), repository.features(conn), repository.plans(conn))


class CatalogCache:
    """The newest catalog this process has seen."""

    def __init__(self, store: Store):
        self._store = store
        self._current = Catalog()
        self._lock = threading.Lock()
        self._read_once = False

    @property
    def current(self) -> Catalog:
        """The catalog last seen; empty before the first refresh."""
        return self._current

    async def refresh(self) -> Catalog:
        """The catalog as committed now; reads it whole only if it has changed."""
        return self._keep(await self._store.read(self._changed))

    def refresh_sync(self) -> Catalog:
        """As `refresh`, for a process without an event loop."""
        return self._keep(self._store.read_sync(self._changed))

    async def poll_forever(self, interval_s: float = 0.3) -> None:
        """Keeps `current` within `interval_s` of SQL until cancelled. A failing read leaves the
        last catalog in use and is logged."""
        while True:
            try:
                await self.refresh()
            except Exception as problem:
                log.warning("catalog_not_read", error=str(problem))
            await asyncio.sleep(interval_s)

    def _changed(self, conn: Connection) -> Catalog | None:
        if self._read_once and repository.version(conn) == self._current.version:
            return None
        return read_catalog(conn)

    def _keep(self, read: Catalog | None) -> Catalog:
        with self._lock:  # a slow reader must not put back what a later one replaced
            if read is not None and (not self._read_once or read.version > self._current.version):
                self._current, self._read_once = read, True
            return self._current
