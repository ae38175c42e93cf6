"""Billing controls of customers and entities as API versions from 2.0 on show them: own entries, and
those inherited that nothing above hides, each with its `source`. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Iterable, Sequence

from ..billing.controls import ANCHORS
from ..billing.holdings import HeldPlan
from ..catalog.controls import ENTRY_TYPES, Controls, UsageLimit
from ..catalog.snapshot import Catalog
from ..domain.intervals import code_of
from ..domain.quantities import unscale
from .catalog_views_v2 import entry_v2

if TYPE_CHECKING:
    from ..engine.engine import CustomerState

Tier = tuple[str, list[Controls]]
_NOT_HIDING = "usage_alerts"
_NOT_OF_ENTITIES = "auto_topups"


def customer_controls(
    own: Controls, plans: Iterable[HeldPlan], state: CustomerState | None, catalog: Catalog
) -> dict[str, Any]:
    """A customer's own controls and its plans'; lists without entries are left out."""
    of_plans = [held.plan.controls for held in plans if not held.entity_id]
    return _shown([("customer", [own]), ("plan", of_plans)], list(ENTRY_TYPES), lambda _: "", state, catalog)


def entity_controls(
    entity_id: str, own: Controls, customer: Controls, plans: Iterable[HeldPlan], state: CustomerState | None,
    catalog: Catalog,
) -> dict[str, Any]:
    """An entity's own controls, the customer's, and those of the plans of both; lists without entries
    are left out."""
    plans = list(plans)
    attached = [held.plan.controls for held in plans if held.entity_id == entity_id]
    of_plans = attached + [held.plan.controls for held in plans if not held.entity_id]

    def counter(feature_id: str) -> str:
        """Whose counter a usage limit of the feature looks at: an entity that has a limit of its own,
        or by a plan of its own, counts alone."""
        if _limits(own, feature_id):
            return entity_id
        alone = any(limit.enabled for controls in attached for limit in _limits(controls, feature_id))
        return entity_id if alone and not _limits(customer, feature_id) else ""

    names = [name for name in ENTRY_TYPES if name != _NOT_OF_ENTITIES]
    return _shown([("entity", [own]), ("customer", [customer]), ("plan", of_plans)], names, counter, state, catalog)


def _shown(
    tiers: Sequence[Tier], names: Iterable[str], counter: Callable[[str], str], state: CustomerState | None,
    catalog: Catalog,
) -> dict[str, Any]:
    shown = {name: _list(name, tiers, counter, state, catalog) for name in names}
    return {name: entries for name, entries in shown.items() if entries}


def _list(
    name: str, tiers: Sequence[Tier], counter: Callable[[str], str], state: CustomerState | None, catalog: Catalog
) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    spoken: set[str | None] = set()
    for source, sources in tiers:
        entries = [entry for controls in sources for entry in getattr(controls, name)]
        for entry in entries:
            if entry.feature_id in spoken or None in spoken:
                continue  # an entry above it is in force in its place
            one = {**entry_v2(entry), "source": source}
            if isinstance(entry, UsageLimit):
                one["usage"] = _used(entry, counter(entry.feature_id), state, catalog)
            shown.append(one)
        if name != _NOT_HIDING:
            spoken.update(entry.feature_id for entry in entries)
    return shown


def _limits(controls: Controls, feature_id: str) -> list[UsageLimit]:
    return [limit for limit in controls.usage_limits if limit.feature_id == feature_id]


def _used(limit: UsageLimit, owner: str, state: CustomerState | None, catalog: Catalog) -> Any:
    """What the limit's current window counted; 0 of one that is over."""
    feature = catalog.features.get(limit.feature_id)
    if state is None or feature is None:
        return 0
    kind = code_of(limit.interval), ANCHORS.index(limit.anchor)
    for interval, anchor, _, end, used in state.windows.get((limit.feature_id, owner), ()):
        if (interval, anchor) == kind and end > state.now_ms:
            return unscale(used, feature.precision)
    return 0
