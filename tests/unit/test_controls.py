"""Promise: entity before customer before plans, a disabled entry hides what is below it, among plans
the strictest wins. Every combination of three controls on three tiers, and what a table cannot say."""

from __future__ import annotations

from decimal import Decimal
from itertools import product
from typing import Any, Callable

import msgpack
import pytest

from sidecar.billing.controls import Caps, Sources, changes, effective, pack
from sidecar.catalog.controls import NO_CONTROLS, Controls, OverageAllowed, SpendLimit, UsageLimit
from sidecar.domain.quantities import QUANTITY_MAX
from sidecar.engine.state import unpack_caps

PRECISIONS = {"msg": 0, "fine": 2, "credits": 6}
DAY, MONTH = 3, 5
ABSENT, ON, OFF = "absent", "on", "off"
TIERS = ("plan", "customer", "entity")
VALUE = {"plan": 30, "customer": 20, "entity": 10}


def spend(feature_id: str | None = "msg", limit: Any = 5, enabled: bool = True, percent: bool = False) -> Controls:
    kind = "usage_percentage" if percent else "absolute"
    return Controls(spend_limits=(SpendLimit(feature_id, enabled, kind, None if limit is None else Decimal(limit)),))  # type: ignore[arg-type]


def window(limit: Any = 5, interval: Any = "day", anchor: Any = "billing_cycle", enabled: bool = True, feature_id: str = "msg") -> Controls:
    return Controls(usage_limits=(UsageLimit(feature_id, enabled, Decimal(limit), interval, anchor),))


def overage(enabled: bool, feature_id: str = "msg") -> Controls:
    return Controls(overage_allowed=(OverageAllowed(feature_id, enabled),))


def together(*several: Controls) -> Controls:
    return Controls(
        tuple(e for c in several for e in c.spend_limits), tuple(e for c in several for e in c.usage_limits),
        tuple(e for c in several for e in c.overage_allowed),
    )


def unpack(data: bytes) -> Caps:
    """The caps as a script's reader sees them, in pairs and triples."""
    spend, control, windows = unpack_caps(data)
    return Caps(
        None if spend is None else tuple(zip(spend[::2], spend[1::2])), control,
        None if windows is None else tuple(zip(windows[::3], windows[1::3], windows[2::3])),
    )


def fields(
    customer: Controls = NO_CONTROLS, plans: list[Any] | None = None, entities: dict[str, Controls] | None = None,
    held: tuple[str, ...] = (),
) -> dict[tuple[str, str], Caps]:
    """The fields, unpacked; a plan without an owner is the customer's."""
    owned = [plan if isinstance(plan, tuple) else ("", plan) for plan in plans or []]
    packed = effective(Sources(customer, owned, entities or {}), PRECISIONS, held)
    return {key: unpack(data) for key, data in packed.items()}


def in_force(found: dict[tuple[str, str], Caps], entity_id: str = "", feature_id: str = "msg") -> Caps:
    """What a script finds for a call: the entity's field, and the customer's for what that leaves open."""
    own, customer = found.get((feature_id, entity_id), Caps()), found.get((feature_id, ""), Caps())
    if not entity_id:
        own = Caps()
    return Caps(
        (customer.spend if own.spend is None else own.spend) or None,
        customer.overage if own.overage == -1 else own.overage,
        (customer.windows if own.windows is None else own.windows) or None,
    )


Entry = Callable[[str, str], Controls]
Answer = Callable[[str | None, str], Any]
CONTROLS: dict[str, tuple[Entry, Answer]] = {
    "spend": (
        lambda tier, state: spend(limit=VALUE[tier], enabled=state == ON),
        lambda tier, state: Caps(spend=((0, VALUE[tier]),)) if tier and state == ON else Caps(),
    ),
    "window": (
        lambda tier, state: window(VALUE[tier], enabled=state == ON),
        lambda tier, state: Caps(windows=((VALUE[tier], DAY, 0),)) if tier and state == ON else Caps(),
    ),
    "overage": (
        lambda tier, state: overage(state == ON),
        lambda tier, state: Caps(overage=int(state == ON)) if tier else Caps(),
    ),
}


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("states", list(product((ABSENT, ON, OFF), repeat=3)), ids=lambda states: "-".join(states))
def test_the_highest_tier_that_speaks_is_in_force(control: str, states: tuple[str, str, str]) -> None:
    entry, answer = CONTROLS[control]
    said = {tier: entry(tier, state) for tier, state in zip(TIERS, states) if state != ABSENT}
    found = fields(
        said.get("customer", NO_CONTROLS), [said["plan"]] if "plan" in said else [],
        {"e1": said["entity"]} if "entity" in said else {},
    )
    state = dict(zip(TIERS, states))

    def expected(*tiers: str) -> Caps:
        speaking = next((tier for tier in tiers if state[tier] != ABSENT), None)
        return answer(speaking, state[speaking] if speaking else ABSENT)

    assert in_force(found, "e1") == expected("entity", "customer", "plan")
    assert in_force(found, "e2") == expected("customer", "plan")
    assert in_force(found) == expected("customer", "plan")


@pytest.mark.parametrize("control", CONTROLS)
def test_one_kind_of_control_hides_no_other(control: str) -> None:
    entry, answer = CONTROLS[control]
    others = [CONTROLS[name][0]("plan", ON) for name in CONTROLS if name != control]
    found = in_force(fields(entry("customer", OFF), [together(*others)]))
    lower = {name: CONTROLS[name][1]("plan", ON) for name in CONTROLS if name != control}
    if "spend" in lower:
        assert found.spend == lower["spend"].spend
    if "window" in lower:
        assert found.windows == lower["window"].windows
    if "overage" in lower:
        assert found.overage == lower["overage"].overage


def test_the_strictest_plan_wins() -> None:
    assert in_force(fields(plans=[spend(limit=30), spend(limit=10), spend(limit=20)])).spend == ((0, 10),)
    assert in_force(fields(plans=[spend(limit=30), spend(enabled=False)])).spend == ((0, 30),)
    assert in_force(fields(plans=[spend(limit=30), spend(limit=50, percent=True)])).spend == ((0, 30), (1, 500_000))
    assert in_force(fields(plans=[overage(True), overage(False)])).overage == 0
    assert in_force(fields(plans=[overage(True), overage(True)])).overage == 1


def test_case_106_all_windows_of_the_plans_hold() -> None:
    assert in_force(fields(plans=[window(5), window(20)])).windows == ((5, DAY, 0),)
    found = in_force(fields(plans=[window(5), window(20, "month"), window(7, anchor="utc"), window(1, enabled=False)]))
    assert found.windows == ((5, DAY, 0), (7, DAY, 1), (20, MONTH, 0))


def test_an_entry_about_every_feature() -> None:
    found = fields(spend(None, 5), held=("msg", "fine"))
    assert {key: caps.spend for key, caps in found.items()} == {("msg", ""): ((0, 5),), ("fine", ""): ((0, 500),)}
    both = together(spend(None, 5), spend("msg", 9))
    assert in_force(fields(both, held=("msg",))).spend == ((0, 9),)
    assert in_force(fields(spend(None, 5), [spend("msg", 9)], held=("msg",))).spend == ((0, 5),), "the higher tier first"
    off = together(spend(None, 5), spend("msg", 9, enabled=False))
    assert in_force(fields(off, [spend("msg", 1)], held=("msg",))).spend is None
    assert in_force(fields(plans=[together(spend(None, 5), spend("msg", 9)), spend(None, 7)], held=("msg",))).spend == ((0, 7),)
    entity = fields(spend("msg", 9), entities={"e1": spend(None, 5)}, held=("msg", "fine"))
    assert in_force(entity, "e1").spend == ((0, 5),) and in_force(entity, "e1", "fine").spend == ((0, 500),)
    assert in_force(entity, "e2").spend == ((0, 9),) and in_force(entity, "e2", "fine").spend is None


def test_an_entry_about_every_feature_need_not_fit_each() -> None:
    assert in_force(fields(spend(None, Decimal("0.4")), held=("msg",))).spend == ((0, 0),)
    assert in_force(fields(spend(None, 10**12), held=("credits",)), feature_id="credits").spend == ((0, QUANTITY_MAX),)


def test_a_limit_without_a_number_caps_nothing_and_hides() -> None:
    assert fields(spend(limit=None)) == {}
    assert in_force(fields(spend(limit=None), [spend(limit=5)])).spend is None


def test_percentages_have_four_places() -> None:
    assert in_force(fields(spend(limit="120.0001", percent=True))).spend == ((1, 1_200_001),)


def test_a_plan_attached_to_an_entity_speaks_for_that_entity() -> None:
    found = fields(plans=[("e1", spend(limit=5))])
    assert in_force(found, "e1").spend == ((0, 5),) and in_force(found).spend is in_force(found, "e2").spend is None
    found = fields(plans=[spend(limit=3), ("e1", spend(limit=5)), ("e1", window(7))])
    assert in_force(found, "e1") == Caps(((0, 3),), -1, ((7, DAY, 0),))
    assert found["msg", ""] == Caps(((0, 3),))
    assert in_force(fields(overage(True), [("e1", overage(False))]), "e1").overage == 1, "the customer's is higher"
    assert in_force(fields(plans=[overage(True), ("e1", overage(False))]), "e1").overage == 0
    own = fields(plans=[("e1", spend(limit=5))], entities={"e1": spend(limit=8)})
    assert in_force(own, "e1").spend == ((0, 8),)


def test_a_disabled_entry_of_an_entitys_plan_changes_nothing() -> None:
    found = fields(plans=[window(5), ("e1", window(3, enabled=False)), ("e1", spend(enabled=False))])
    assert found == {("msg", ""): Caps(windows=((5, DAY, 0),))}


def test_features_that_count_nothing_have_no_caps() -> None:
    assert fields(together(spend("gone"), spend(None, 5)), held=("sso", "msg")) == {("msg", ""): Caps(((0, 5),))}


def test_the_packed_form() -> None:
    assert msgpack.unpackb(pack(Caps(((0, 5), (1, 10_000)), 0, ((7, DAY, 1),)))) == [2, [0, 5, 1, 10_000], 0, [7, 3, 1]]
    assert msgpack.unpackb(pack(Caps((), -1, None))) == [2, [], -1, False]
    for caps in (Caps(), Caps((), 1, ()), Caps(((0, 5), (1, 6)), 0, ((7, 3, 1), (8, 8, 0)))):
        assert unpack(pack(caps)) == caps


def test_only_what_differs_is_changed() -> None:
    stored = {("a", ""): b"1", ("b", ""): b"2", ("c", "e"): b"3"}
    assert changes(stored, {("b", ""): b"2", ("c", "e"): b"4", ("d", ""): b"5"}) == [
        ["caps", "a", "", b""], ["caps", "c", "e", b"4"], ["caps", "d", "", b"5"],
    ]
    assert changes(stored, dict(stored)) == []
