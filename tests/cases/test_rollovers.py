"""Worked cases on rollovers: what a reset finds unspent stays beside the new grant."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from sqlalchemy import select

from sidecar.store.tables import ledger
from tests.cases.desk import UNIT, rows
from tests.cases.versions import seen
from tests.cases.world import E, M, Customer, World
from tests.http import DAY_MS


def rolled(maximum: Any = None, length: int = 12, **fields: Any) -> dict[str, Any]:
    """The rollover of an item, by months unless said otherwise."""
    most = {} if maximum is None else {"max": maximum}
    return {"rollover": {**most, "duration": "month", "length": length, **fields}}


def next_period(c: Customer, used: Any = 0) -> None:
    """Uses so much, and reads once the period is over."""
    if used:
        c.track(used)
    c.api.advance_to(c.period_end())
    c.check()


def stored(c: Customer) -> list[tuple[int, int]]:
    """(balance, granted) of each rollover in SQL, in units, soonest-ending first."""
    return [(row.balance // UNIT, row.granted // UNIT) for row in rows(c) if row.rollover]


def resets(c: Customer) -> int:
    """How many resets the ledger has."""
    c.api.sync()
    query = select(ledger.c.kind).where(ledger.c.kind == "reset")
    return len(c.api.ctx.store.read_sync(lambda conn: conn.execute(query).all()))


def test_case_130_what_is_left_is_trimmed_to_the_maximum(world: World) -> None:
    c = world.holding(M(300, **rolled(100)))
    next_period(c, 50)
    shown = seen(c)
    assert (shown.r, shown.u, shown.g, shown.rolls, shown.made) == (400, 0, 400, [100], [100])
    assert stored(c) == [(100, 100)]


def test_case_131_the_oldest_is_trimmed_first(world: World) -> None:
    c = world.holding(M(100, **rolled(80)))
    next_period(c, 50)
    shown = seen(c)
    assert (shown.r, shown.rolls) == (150, [50])
    next_period(c)
    shown = seen(c)
    assert (shown.r, shown.u, shown.rolls, shown.made) == (180, 0, [80], [80])
    assert stored(c) == [(80, 80)], "the row of 50 is gone"


def test_case_133_a_maximum_in_percent_of_the_grant(world: World) -> None:
    c = world.holding(M(100, rollover={"max_percentage": 50, "duration": "month", "length": 12}))
    next_period(c, 60)
    assert seen(c).rolls == [40]
    next_period(c)
    shown = seen(c)
    assert (sum(shown.rolls), shown.r) == (50, 150)
    assert [balance for balance, _ in stored(c)] == [50]


@pytest.mark.parametrize("monthly", [True, False], ids=["case 134", "case 236"])
def test_cases_134_and_236_three_idle_months(world: World, monthly: bool) -> None:
    c = world.holding(M(200, **rolled()))
    if monthly:
        for _ in range(3):
            next_period(c)
    else:
        world.api.advance_to(c.period_end() + 70 * DAY_MS)  # in the fourth month, whatever their lengths
    shown = seen(c)
    assert (shown.r, shown.u, shown.rolls) == (800, 0, [200, 200, 200])
    assert stored(c) == [(200, 200)] * 3 and resets(c) == (3 if monthly else 1)


def test_case_136_rollovers_are_spent_first(world: World) -> None:
    c = world.holding(M(100, **rolled()))
    next_period(c, 70)
    assert seen(c).rolls == [30]
    c.track(10)
    shown = seen(c)
    assert (shown.rolls, shown.made, shown.r, shown.u) == ([20], [30], 120, 10)
    assert c.parts() == [(100, 0)] and stored(c) == [(20, 30)]


def test_case_137_a_rollover_pays_before_the_month(world: World) -> None:
    c = world.holding(M(1000, **rolled()))
    next_period(c, 600)
    assert seen(c).rolls == [400]
    c.track(300)
    assert seen(c).rolls == [100] and c.parts() == [(1000, 0)]
    assert stored(c) == [(100, 400)]


def test_case_139_each_entity_has_its_own(world: World) -> None:
    c = world.holding(E(100).with_(**rolled()))
    c.entities("e1", "e2")
    c.track(40, entity_id="e1")
    world.api.advance_to(c.period_end())
    for entity, left in (("e1", 60), ("e2", 100), ("", 160)):
        shown = seen(c, entity=entity)
        assert (shown.rolls, shown.made, shown.u) == ([left], [left], 0)
        assert shown.r == left + (200 if not entity else 100)
    [roll] = [row for row in rows(c) if row.rollover]
    assert (roll.balance, roll.prepaid) == (160 * UNIT, 160 * UNIT)
    c.track(70, entity_id="e1")
    assert (seen(c, entity="e1").rolls, seen(c, entity="e2").rolls, seen(c).rolls) == ([0], [100], [100])


def test_case_151_one_rollover_however_many_race(world: World) -> None:
    c = world.holding(M(400, **rolled(500)))
    c.track(200)
    world.api.advance_to(c.period_end())
    track = ("POST", "/v1/track", {"customer_id": c.id, "feature_id": "msg", "value": 10})
    assert {answer.status_code for answer in world.api.together(*[track] * 5)} == {200}
    shown = seen(c)
    assert (shown.r, shown.u, shown.rolls, shown.made) == (550, 50, [150], [200])
    assert c.parts() == [(400, 0)]
    assert stored(c) == [(150, 200)] and resets(c) == 1


def test_a_rollover_of_nothing_leaves_no_row_of_an_entity_either(world: World) -> None:
    """What a later reset cut away, or what has ended, is kept nowhere: not in the shares either."""
    c = world.holding(E(100).with_(**rolled(100, length=2)))
    c.entities("e1")
    for _ in range(6):
        next_period(c)
    assert seen(c, entity="e1").rolls == [100]
    state = world.api.run(world.api.ctx.engine.view(c.id))
    assert state is not None
    rolls = {row.no for row in state.features["msg"] if row.rollover}
    _, slots = state.entities["msg", "e1"]
    assert len(rolls) == 1 and {slot.no for slot in slots} <= rolls | {row.no for row in state.features["msg"]}


# -- at most 31 at once ----------------------------------------------------------------------------

EACH_WAY: dict[str, Callable[[dict[str, Any]], tuple[str, dict[str, Any], str]]] = {
    "1.2": lambda rollover: ("/v1/products", {
        "id": "p", "name": "P", "items": [{"feature_id": "msg", "included_usage": 5, "interval": "day", "rollover": rollover}],
    }, "1.2"),
    "1.2 config": lambda rollover: ("/v1/products", {
        "id": "p", "name": "P",
        "items": [{"feature_id": "msg", "included_usage": 5, "interval": "day", "config": {"rollover": rollover}}],
    }, "1.2"),
    "2.x": lambda rollover: ("/v1/plans.create", {
        "plan_id": "p", "name": "P",
        "items": [{"feature_id": "msg", "included": 5, "reset": {"interval": "day"}, "rollover": _newer(rollover)}],
    }, "2.3.0"),
    "balances.create": lambda rollover: ("/v1/balances.create", {
        "customer_id": "c", "feature_id": "msg", "included_grant": 5, "reset": {"interval": "day"}, "rollover": _newer(rollover),
    }, "2.3.0"),
}


def _newer(rollover: dict[str, Any]) -> dict[str, Any]:
    return {"expiry_duration_type": rollover["duration"], "expiry_duration_length": rollover["length"]}


@pytest.mark.parametrize("way", EACH_WAY)
def test_more_than_31_rollovers_at_once_are_refused(world: World, way: str) -> None:
    world.feature("msg")
    world.api.post("/v1/customers", {"id": "c"})
    path, body, version = EACH_WAY[way]({"duration": "month", "length": 2})
    message = world.api.refused(path, body, 400, "invalid_inputs", headers={"x-api-version": version})
    assert "31" in message
    path, body, version = EACH_WAY[way]({"duration": "month", "length": 1})
    world.api.post(path, body, headers={"x-api-version": version})
