"""Promise: of each control (spend limit, usage limit, overage control) the entry in force is the entity's
before the customer's before the plan's, a disabled one too; check and the same call with send_event
follow it alike. One table, written by hand, for every level and state of an entry."""

from __future__ import annotations

import contextlib
from itertools import product
from typing import Any

import pytest

from tests.cases.world import Customer, M, U, World, decision, overage, spend_limit, usage_limit
from tests.http import Api

LEVELS = ("plan", "customer", "entity")
LIMITS = {"plan": 3, "customer": 5, "entity": 7}
"""What each level's entry leaves, so that it shows whose is in force."""
BEYOND = 8
"""More than any of them leaves."""

ON, OFF = "on", "off"
Said = tuple[str, str] | None
"""The level whose entry is in force, and whether that is enabled; None where there is none."""

CELLS: dict[tuple[str, str], tuple[dict[str, str], Said, Said, Said]] = {
    # (level, state of its entry): entries at each level; in force for the customer, for an entity
    # without entries, and for the entity that may have one
    ("plan", "absent"): ({}, None, None, None),
    ("plan", "on"): ({"plan": ON}, ("plan", ON), ("plan", ON), ("plan", ON)),
    ("plan", "off"): ({"plan": OFF}, ("plan", OFF), ("plan", OFF), ("plan", OFF)),
    ("plan", "disabled by the customer's"): (
        {"plan": ON, "customer": OFF}, ("customer", OFF), ("customer", OFF), ("customer", OFF),
    ),
    ("plan", "disabled by the entity's"): ({"plan": ON, "entity": OFF}, ("plan", ON), ("plan", ON), ("entity", OFF)),
    ("customer", "absent"): ({"plan": ON, "entity": ON}, ("plan", ON), ("plan", ON), ("entity", ON)),
    ("customer", "on"): ({"customer": ON}, ("customer", ON), ("customer", ON), ("customer", ON)),
    ("customer", "on over the plan's"): (
        {"plan": ON, "customer": ON}, ("customer", ON), ("customer", ON), ("customer", ON),
    ),
    ("customer", "on over a disabled one"): (
        {"plan": OFF, "customer": ON}, ("customer", ON), ("customer", ON), ("customer", ON),
    ),
    ("customer", "off"): ({"customer": OFF}, ("customer", OFF), ("customer", OFF), ("customer", OFF)),
    ("customer", "disabled by the entity's"): (
        {"customer": ON, "entity": OFF}, ("customer", ON), ("customer", ON), ("entity", OFF),
    ),
    ("entity", "absent"): ({"plan": OFF, "customer": ON}, ("customer", ON), ("customer", ON), ("customer", ON)),
    ("entity", "on"): ({"entity": ON}, None, None, ("entity", ON)),
    ("entity", "on over all"): (
        {"plan": ON, "customer": ON, "entity": ON}, ("customer", ON), ("customer", ON), ("entity", ON),
    ),
    ("entity", "on over disabled ones"): (  # nothing is above it
        {"plan": OFF, "customer": OFF, "entity": ON}, ("customer", OFF), ("customer", OFF), ("entity", ON),
    ),
    ("entity", "off"): ({"entity": OFF}, None, None, ("entity", OFF)),
}
CALLERS = ("", "e2", "e1")
VERSIONS = ("1.2", "2.0", "2.1")
CONTROLS = ("spend limit", "usage limit", "overage of a free grant", "overage of pay-per-use")


@pytest.fixture(scope="module")
def shop(module_api: Api) -> World:
    made = World(module_api)
    made.feature("seats", "continuous_use")
    return made


@pytest.fixture(scope="module")
def plans(shop: World) -> dict[tuple[str, str], tuple[str, dict[str, Any]]]:
    """The plans of each control, by the state of their own entry."""
    return {
        (control, state): shop.plan(_bucket(control), controls=_entries(control, "plan", state))
        for control, state in product(CONTROLS, ("", ON, OFF))
    }


def _bucket(control: str) -> Any:
    return {"usage limit": M(100), "overage of a free grant": M(10)}.get(control) or U(10, price=0)


def _entries(control: str, level: str, state: str) -> dict[str, Any]:
    """Billing controls with one entry, none for no state."""
    if not state:
        return {}
    enabled = state == ON
    if control == "spend limit":
        return {"spend_limits": [spend_limit(LIMITS[level], enabled=enabled)]}
    if control == "usage limit":
        return {"usage_limits": [usage_limit(LIMITS[level], enabled=enabled)]}
    return {"overage_allowed": [overage(enabled)]}


def _customer(world: World, control: str, plan: Any, entries: dict[str, str]) -> Customer:
    """A customer with these entries, whose grant is used up unless the control is about that."""
    c = world.customer(plan)
    world.api.post(f"/v1/customers/{c.id}/entities", [{"id": name, "feature_id": "seats"} for name in ("e1", "e2")])
    if control != "usage limit":
        c.track(10)
    if "customer" in entries:
        c.controls(**_entries(control, "customer", entries["customer"]))
    if "entity" in entries:
        c.controls("e1", **_entries(control, "entity", entries["entity"]))
    return c


def expected(control: str, said: Said) -> tuple[int, str]:
    """How many units the next call may take at most, and why not one more; BEYOND and '' for no
    bound that the test goes to."""
    level, state = said or ("", "")
    if control == "spend limit":
        return (LIMITS[level], "spend_limit") if state == ON else (BEYOND, "")
    if control == "usage limit":
        return (LIMITS[level], "usage_limit") if state == ON else (BEYOND, "")
    if control == "overage of a free grant":
        return (BEYOND, "") if state == ON else (0, "insufficient_balance")
    return (0, "insufficient_balance") if state == OFF else (BEYOND, "")


def told(c: Customer, version: str, required: int, entity: str) -> tuple[Any, ...]:
    """What a check says, and the same call with send_event does."""
    c.world.version = version
    scope = {"entity_id": entity} if entity else {}
    seen, sent = c.check(required, **scope), c.check(required, **scope, send_event=True)
    assert decision(sent) == decision(seen)
    assert (("event_id" if c.world.newer else "id") in sent) is sent["allowed"]
    assert used(sent) == used(seen) + (required if sent["allowed"] else 0)
    assert decision(seen)[2:] == ("msg", required)
    return decision(seen)[:2]


def used(answer: dict[str, Any]) -> Any:
    """The usage that a check shows."""
    return answer["usage"] if "usage" in answer else answer["balance"]["usage"]


def probe(c: Customer, control: str, said: Said, entity: str) -> None:
    """Asks and does one unit too many, then in two parts what just fits, then one more: at each
    generation of the wire."""
    room, reason = expected(control, said)
    for version in VERSIONS if reason else ():
        assert told(c, version, room + 1, entity) == (False, reason)
    if room:
        assert told(c, "1.2", 1, entity) == told(c, "2.1", room - 1, entity) == (True, None)
    for version in VERSIONS if reason else ():
        assert told(c, version, 1, entity) == (False, reason)


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize(("level", "state"), CELLS, ids=lambda name: name)
def test_each_state_of_an_entry_at_each_level(shop: World, plans: Any, control: str, level: str, state: str) -> None:
    entries, *said = CELLS[level, state]
    for in_force, entity in zip(said, CALLERS):
        probe(_customer(shop, control, plans[control, entries.get("plan", "")], entries), control, in_force, entity)


@pytest.mark.ways("short")
@pytest.mark.parametrize("control", CONTROLS)
def test_whatever_stands_at_all_levels_the_highest_that_speaks_is_in_force(shop: World, plans: Any, control: str) -> None:
    """All 27 combinations of the three levels, by the rule in one line. What is asked changes nothing, so each
    customer is asked both ways."""
    for states in product(("", ON, OFF), repeat=3):
        entries = {level: state for level, state in zip(LEVELS, states) if state}
        shop.version = "1.2" if shop.version == "2.1" else "2.1"
        c = _customer(shop, control, plans[control, entries.get("plan", "")], entries)
        for entity in CALLERS:
            heard = ("entity", "customer", "plan") if entity == "e1" else ("customer", "plan")
            said = next(((level, entries[level]) for level in heard if level in entries), None)
            room, reason = expected(control, said)
            scope = {"entity_id": entity} if entity else {}
            for way in (contextlib.nullcontext(), shop.api.in_memory()):
                with way:
                    assert not room or c.allowed(room, **scope), (entries, entity)
                    assert not reason or c.denied(room + 1, **scope) == reason, (entries, entity)
