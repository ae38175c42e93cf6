"""The balance model's catalog: features, what credits cost, and which features an event feeds."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Feature:
    """A feature; `credit_schema` has scaled credits per scaled unit for each member."""

    id: str
    type: str = "single_use"
    precision: int = 6
    credit_schema: tuple[tuple[str, Fraction], ...] = ()
    event_names: tuple[str, ...] = ()

    @property
    def continuous(self) -> bool:
        return self.type == "continuous_use"

    @property
    def is_system(self) -> bool:
        return self.type == "credit_system"


@dataclass(frozen=True)
class Catalog:
    """Features in order of creation, which decides among credit systems and event features."""

    features: tuple[Feature, ...]

    def __getitem__(self, feature_id: str) -> Feature:
        return next(f for f in self.features if f.id == feature_id)

    def systems_of(self, member: str) -> list[tuple[Feature, Fraction]]:
        return [(f, cost) for f in self.features for m, cost in f.credit_schema if m == member]

    def features_of_event(self, event_name: str) -> list[str]:
        return [f.id for f in self.features if event_name in f.event_names]
