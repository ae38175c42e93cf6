"""Which billing controls are in force: the entries of plans, customer and entities resolved into
what the scripts read, one field per feature.

Pure. An entity's entry comes before the customer's, the customer's before the plans': on a higher
tier an entry about a feature, a disabled one too, hides the lower tiers' of its kind. Among plans the
strictest wins, and all windows hold. Quantities are scaled by the feature's precision.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Collection, Iterable, Iterator, Literal, Mapping, NamedTuple, Sequence

import msgpack

from ..catalog.controls import NO_CONTROLS, Controls, SpendLimit
from ..domain.intervals import code_of
from ..domain.quantities import QUANTITY_MAX, QuantityError, scale
from .steps import PERCENT_UNIT, Op

FORMAT = 2
ABSOLUTE, PERCENT = 0, 1
INHERIT, OFF, ON = -1, 0, 1
ANCHORS = ("billing_cycle", "utc")
"""What windows count from; the index is the code."""

Key = tuple[str, str]
"""(feature id, entity id); '' for the customer, and all entities that have nothing of their own."""
Spend = tuple[tuple[int, int], ...]
"""(kind, value) each: scaled units, or percent × `PERCENT_UNIT`. The lowest is the limit."""
Windows = tuple[tuple[int, int, int], ...]
"""(limit, interval code, anchor code) each, all of which hold."""


class Caps(NamedTuple):
    """What one source, or several together, say about a feature. None (INHERIT for overage) where
    they say nothing; an empty list says that nothing is capped."""

    spend: Spend | None = None
    overage: int = INHERIT
    windows: Windows | None = None


SILENT = Caps()


@dataclass(frozen=True)
class Sources:
    """All controls that bear on one customer."""

    customer: Controls = NO_CONTROLS
    plans: Sequence[tuple[str, Controls]] = ()
    """Of the plans held: whose it is ('' the customer's, else the entity's id), and its controls."""
    entities: Mapping[str, Controls] = field(default_factory=dict)
    """Of the open entities that have any."""

    @property
    def is_empty(self) -> bool:
        """Nobody says anything."""
        return not any(controls.capping for controls in self._all())

    def feature_ids(self) -> set[str]:
        """The features that an entry names."""
        return {entry.feature_id for controls in self._all() for entry in controls.capping if entry.feature_id}

    @property
    def speak_of_all(self) -> bool:
        """Whether an entry is about every feature."""
        return any(limit.feature_id is None for controls in self._all() for limit in controls.spend_limits)

    def _all(self) -> Iterator[Controls]:
        yield self.customer
        yield from (controls for _, controls in self.plans)
        yield from self.entities.values()


def effective(
    sources: Sources, precisions: Mapping[str, int], held: Collection[str], systems: Collection[str] = ()
) -> dict[Key, bytes]:
    """The caps fields of a customer, packed as scripts read them; features without caps have none.

    `precisions` are those of the features that count units: entries about others have no effect.
    `held` are the features that entries about every feature are meant for, `systems` those that
    are credit systems."""
    features = sources.feature_ids() | (set(held) if sources.speak_of_all else set())
    wanted: dict[Key, bytes] = {}
    for feature_id in sorted(features & precisions.keys()):
        for entity_id, caps in _of_feature(sources, feature_id, precisions[feature_id]):
            if caps != SILENT:
                wanted[feature_id, entity_id] = pack(caps, feature_id in systems)
    return wanted


def changes(stored: Mapping[Key, bytes], wanted: Mapping[Key, bytes]) -> list[Op]:
    """The operations that make `wanted` of `stored`."""
    gone = [key for key in stored if key not in wanted]
    new = [key for key, data in wanted.items() if stored.get(key) != data]
    return [["caps", *key, b""] for key in sorted(gone)] + [["caps", *key, wanted[key]] for key in sorted(new)]


def pack(caps: Caps, is_system: bool = False) -> bytes:
    """The form that scripts read: MessagePack of [2, spend, overage, windows], the lists flat and
    false where nothing is said; of a credit system, whose windows count what its buckets give, with
    a 1 behind."""
    said = [FORMAT, _flat(caps.spend), caps.overage, _flat(caps.windows)]
    return msgpack.packb([*said, 1] if is_system else said)


def _of_feature(sources: Sources, feature_id: str, precision: int) -> Iterator[tuple[str, Caps]]:
    """Each field of one feature: the customer's, then those of entities."""
    customer = _said(sources.customer, feature_id, precision)
    plans = [(owner, _said(controls, feature_id, precision)) for owner, controls in sources.plans]
    shared = [caps for owner, caps in plans if not owner]
    yield "", _in_force(_first(customer, _strictest(shared)))
    own = {entity_id: _said(controls, feature_id, precision) for entity_id, controls in sources.entities.items()}
    for entity_id in sorted(own.keys() | {owner for owner, _ in plans if owner}):
        attached = _in_force(_strictest(caps for owner, caps in plans if owner == entity_id))
        # a plan of the entity adds to the customer's plans, where nothing higher speaks
        below = _hidden_by(customer, _joined(attached, _strictest(shared)))
        yield entity_id, _first(own.get(entity_id, SILENT), below)


def _said(controls: Controls, feature_id: str, precision: int) -> Caps:
    """What one source says about a feature."""
    limits = {limit.feature_id: limit for limit in controls.spend_limits if limit.feature_id in (None, feature_id)}
    limit = limits.get(feature_id) or limits.get(None)
    overage = next((int(entry.enabled) for entry in controls.overage_allowed if entry.feature_id == feature_id), INHERIT)
    windows = [entry for entry in controls.usage_limits if entry.feature_id == feature_id]
    return Caps(
        None if limit is None else _ceiling(limit, precision),
        overage,
        tuple(
            (_scaled(entry.limit, precision), code_of(entry.interval), ANCHORS.index(entry.anchor))
            for entry in windows if entry.enabled
        ) if windows else None,
    )


def _ceiling(limit: SpendLimit, precision: int) -> Spend:
    if not limit.enabled or limit.overage_limit is None:
        return ()
    if limit.limit_type == "usage_percentage":
        return ((PERCENT, int(limit.overage_limit * PERCENT_UNIT)),)
    return ((ABSOLUTE, _scaled(limit.overage_limit, precision)),)


def _scaled(value: Decimal, precision: int) -> int:
    """A quantity scaled; one that is about every feature need not fit each of them."""
    try:
        return scale(value, precision)
    except QuantityError:
        return QUANTITY_MAX if value >= 1 else 0


def _first(*tiers: Caps) -> Caps:
    """What the highest tier that speaks says, for each kind of control."""
    spend = next((caps.spend for caps in tiers if caps.spend is not None), None)
    overage = next((caps.overage for caps in tiers if caps.overage != INHERIT), INHERIT)
    return Caps(spend, overage, next((caps.windows for caps in tiers if caps.windows is not None), None))


def _strictest(plans: Iterable[Caps]) -> Caps:
    """What several plans say together: the lowest ceiling of a kind, every window, off before on."""
    spend: dict[int, int] = {}
    windows: dict[tuple[int, int], int] = {}
    overage = INHERIT
    spoken = [False, False]
    for caps in plans:
        spoken[0] |= caps.spend is not None
        spoken[1] |= caps.windows is not None
        for kind, value in caps.spend or ():
            spend[kind] = min(value, spend.get(kind, value))
        for limit, interval, anchor in caps.windows or ():
            windows[interval, anchor] = min(limit, windows.get((interval, anchor), limit))
        if caps.overage != INHERIT:
            overage = caps.overage if overage == INHERIT else min(overage, caps.overage)
    return Caps(
        tuple(sorted(spend.items())) if spoken[0] else None,
        overage,
        tuple((limit, *window) for window, limit in sorted(windows.items())) if spoken[1] else None,
    )


def _in_force(caps: Caps) -> Caps:
    """The same, where there is no tier below that an empty list could hide."""
    return Caps(caps.spend or None, caps.overage, caps.windows or None)


def _joined(attached: Caps, shared: Caps) -> Caps:
    """What an entity's plans and the customer's say together, for the kinds that the entity's speak
    of: of the others the customer's field tells."""
    both = _strictest([attached, shared])
    return Caps(
        None if attached.spend is None else both.spend,
        INHERIT if attached.overage == INHERIT else both.overage,
        None if attached.windows is None else both.windows,
    )


def _hidden_by(higher: Caps, lower: Caps) -> Caps:
    """What is left of `lower` where `higher` does not speak."""
    return Caps(
        lower.spend if higher.spend is None else None,
        lower.overage if higher.overage == INHERIT else INHERIT,
        lower.windows if higher.windows is None else None,
    )


def _flat(entries: Spend | Windows | None) -> list[int] | Literal[False]:
    return False if entries is None else [number for entry in entries for number in entry]
