"""Random worlds for the property tests: a catalog, a customer's buckets, and calls on them.

Quantities are small and precisions low, so that buckets run dry, floors are reached and credits
round in nearly every example. Dates lie between the minutes at which calls are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from hypothesis import strategies as st

from sidecar.catalog.model import Feature
from sidecar.catalog.snapshot import Catalog
from sidecar.domain import intervals
from sidecar.domain.quantities import fraction
from tests.model import account as model

START = 1_769_817_600_000  # 2026-01-31, so that months are clamped
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
OFF_THE_MINUTE_MS = 30_000
"""Calls are made on the minute, dates fall half a minute later: the time a call itself takes
cannot decide an example."""

EVENT = "work"
ENTITY_FEATURES = ("seat", "room")
ENTITY_IDS = ("ann", "bob", "cy")
SYSTEMS = ("gold", "mint")
COSTS = ("0", "0.1", "0.3", "1", "1.4", "2", "2.5", "7")
LIFETIME, MONTH = intervals.LIFETIME, intervals.MONTH
CODES = (LIFETIME, LIFETIME, MONTH, MONTH, intervals.HOUR, intervals.DAY, intervals.WEEK, intervals.QUARTER)


@dataclass(frozen=True)
class FeatureSpec:
    """A feature as a caller would declare it: costs are decimal credits per unit."""

    id: str
    type: str
    precision: int
    costs: tuple[tuple[str, str], ...] = ()
    event_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class World:
    """A catalog in order of creation and the buckets a customer starts with."""

    features: tuple[FeatureSpec, ...]
    entities: tuple[tuple[str, str], ...]
    buckets: tuple[model.Bucket, ...]

    def catalog(self) -> model.Catalog:
        """The model's catalog: costs become reduced fractions of scaled units."""
        return model.Catalog(tuple(self._feature(spec) for spec in self.features))

    def real_catalog(self) -> Catalog:
        """The same catalog as the sidecar has it."""
        return Catalog.of(1, (
            Feature(
                f.id, f.id, f.type, f.precision, event_names=f.event_names, created_at=age,
                credit_schema=tuple((member, Decimal(cost)) for member, cost in f.costs),
            ) for age, f in enumerate(self.features)
        ), ())

    def _feature(self, spec: FeatureSpec) -> model.Feature:
        precision = {f.id: f.precision for f in self.features}
        schema = tuple(
            (member, Fraction(*fraction(Decimal(cost), spec.precision, precision[member]))) for member, cost in spec.costs
        )
        return model.Feature(spec.id, spec.type, spec.precision, schema, spec.event_names)


_one_in_four = st.sampled_from((False, False, False, True))
_precision = st.sampled_from((0, 1, 2))
_fed = st.sampled_from(((), (EVENT,)))
_cost = st.sampled_from(COSTS)


def _system(name: str) -> st.SearchStrategy[FeatureSpec]:
    """A credit system over alpha and one of the other two."""
    costs = st.tuples(st.tuples(st.just("alpha"), _cost), st.tuples(st.sampled_from(("beta", "seat")), _cost))
    return st.builds(FeatureSpec, st.just(name), st.just("credit_system"), _precision, costs, _fed)


_features = st.tuples(
    st.builds(FeatureSpec, st.just("alpha"), st.just("single_use"), _precision, event_names=st.just((EVENT,))),
    st.builds(FeatureSpec, st.just("beta"), st.just("single_use"), _precision, event_names=_fed),
    st.builds(FeatureSpec, st.just("seat"), st.just("continuous_use"), st.just(0), event_names=_fed),
    st.just(FeatureSpec("room", "continuous_use", 0)),
    st.builds(FeatureSpec, st.just("flag"), st.just("boolean"), st.just(0), event_names=_fed),
    *(_system(name) for name in SYSTEMS),
)
_order_of_creation = st.permutations(range(7))


@dataclass(frozen=True)
class Draft:
    """A bucket as drawn, before it is known which entities there are and what time it is."""

    feature_id: str
    where: str
    kind: str
    granted: int
    purchasable: int | None
    interval: int
    interval_count: int
    anchor_hours_ago: int
    days_old: int
    add_on: bool
    entity: int
    expires_in_hours: int

    def bucket(self, no: int, now: int, entities: tuple[tuple[str, str], ...]) -> model.Bucket:
        """The bucket, granted now to a customer with these (entity, feature)."""
        made = model.Bucket(no, self.feature_id, created_at=START - self.days_old * DAY_MS, add_on=self.add_on)
        if self.where == "entity" and entities:
            made.entity_id = entities[self.entity % len(entities)][0]
        if self.feature_id == "flag":
            return made
        if self.where == "each":
            made.entity_feature = ENTITY_FEATURES[self.entity % len(ENTITY_FEATURES)]
        self._grant(made)
        self._dates(made, now)
        return made

    def _grant(self, made: model.Bucket) -> None:
        if self.kind == "unlimited":
            made.unlimited = True
            return
        made.granted = made.balance = self.granted
        made.paid = self.kind in ("prepaid", "pay_per_use")
        if self.kind == "pay_per_use":
            made.usage_allowed, made.purchasable = True, self.purchasable

    def _dates(self, made: model.Bucket, now: int) -> None:
        if self.interval != intervals.LIFETIME and self.feature_id != "seat":  # continuous use never resets
            made.interval, made.interval_count = self.interval, self.interval_count
            made.anchor = START - self.anchor_hours_ago * HOUR_MS + OFF_THE_MINUTE_MS
            made.next_reset_at = intervals.next_reset(made.anchor, made.interval, made.interval_count, now)
        elif self.expires_in_hours:
            made.expires_at = now + self.expires_in_hours * HOUR_MS + OFF_THE_MINUTE_MS


drafts = st.builds(
    Draft,
    feature_id=st.sampled_from((*4 * ("alpha",), "beta", "beta", "seat", *3 * ("gold",), "mint", "flag")),
    where=st.sampled_from(("customer", "customer", "entity", "each", "each")),
    kind=st.sampled_from(("free", "free", "free", "prepaid", "pay_per_use", "pay_per_use", "unlimited")),
    granted=st.integers(0, 12),
    purchasable=st.one_of(st.none(), st.integers(0, 6)),
    interval=st.sampled_from(CODES),
    interval_count=st.sampled_from((1, 1, 2)),
    anchor_hours_ago=st.integers(0, 60),
    days_old=st.integers(0, 2),
    add_on=_one_in_four,
    entity=st.integers(0, 2),
    expires_in_hours=st.sampled_from((0, 0, 0, 1, 24, 96)),
)
_drafts = st.lists(drafts, min_size=2, max_size=8)
_entities = st.lists(
    st.tuples(st.sampled_from(ENTITY_IDS), st.sampled_from(ENTITY_FEATURES)), max_size=3, unique_by=lambda entity: entity[0]
)


def _world(specs: tuple[FeatureSpec, ...], order: list[int], entities: list[tuple[str, str]], drawn: list[Draft]) -> World:
    made = tuple(draft.bucket(no, START, tuple(entities)) for no, draft in enumerate(drawn, 1))
    return World(tuple(specs[i] for i in order), tuple(entities), made)


def worlds() -> st.SearchStrategy[World]:
    """A catalog in random order of creation, up to three entities, two to eight buckets."""
    return _worlds


_worlds = st.builds(_world, _features, _order_of_creation, _entities, _drafts)

amounts = st.one_of(st.integers(1, 9), st.integers(-12, 30), st.just(0))
modes = st.sampled_from(("cap", "cap", "reject", "overflow"))
hours_ahead = st.sampled_from((1, 2, 24, 24 * 7, 24 * 31, 24 * 100))
targets = st.sampled_from(("alpha", "alpha", "beta", "seat", *SYSTEMS, "flag"))
