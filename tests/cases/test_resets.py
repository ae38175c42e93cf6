"""Worked cases on resets, and that nothing depends on who looked when: three missed months read once
are three months read monthly."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Callable

import pytest
from sqlalchemy import select

from sidecar.domain import layout
from sidecar.domain.intervals import MONTH, add_interval
from sidecar.domain.layout import Row
from sidecar.engine import keys
from sidecar.store.tables import ledger
from tests.cases.desk import UNIT, rows
from tests.cases.versions import NEWEST, V20, V21, seen, shown_at
from tests.cases.world import Bucket, Customer, E, M, U, World
from tests.http import DAY_MS, Api

START_MS = int(datetime(2041, 1, 31, 12, tzinfo=UTC).timestamp() * 1000)
"""The 31st: months from here on end at different days."""
FAR_MS = 250_000_000_000_000


def in_redis(c: Customer, feature: str = "msg") -> tuple[Row, ...]:
    """A feature's buckets as Redis holds them."""
    p = c.api.ctx.engine.partition_of(c.id)
    return layout.unpack(c.api.redis.hget(keys.customer(p, c.id), f"b:{feature}")).rows


def lines(c: Customer, kind: str = "reset") -> list[tuple[int, int]]:
    """The customer's ledger lines of a kind, as (delta, overage that is owed)."""
    c.api.sync()
    cid = in_sql(c)
    query = select(ledger.c.delta, ledger.c.over_units).where(ledger.c.kind == kind, ledger.c.cid == cid)
    return [tuple(row) for row in c.api.ctx.store.read_sync(lambda conn: conn.execute(query).all())]


def in_sql(c: Customer) -> int:
    """The customer's internal id."""
    state = c.api.run(c.api.ctx.engine.view(c.id))
    assert state is not None
    return state.cid


def test_case_142_the_period_is_over(world: World) -> None:
    c = world.holding(M(100))
    c.track(30)
    due = c.period_end()
    world.api.advance_to(due)
    shown = seen(c)
    assert (shown.r, shown.u, shown.g) == (100, 0, 100)
    for row in (*rows(c), *in_redis(c)):
        assert (row.balance, row.granted) == (100 * UNIT, 100 * UNIT)
        assert row.next_reset_at == add_interval(row.anchor, MONTH, 1, 2) > due == add_interval(row.anchor, MONTH, 1, 1)
    assert lines(c) == [(30 * UNIT, 0)]


@pytest.mark.parametrize("version", ["1.2", "2.1"])
@pytest.mark.parametrize("read", ["check", "get"])
def test_case_143_five_read_at_once(world: World, version: str, read: str) -> None:
    c = world.holding(M(100))
    c.track(40)
    world.api.advance_to(c.period_end())
    check = {"customer_id": c.id, "feature_id": "msg"}
    call = ("POST", "/v1/check", check) if read == "check" else ("GET", f"/v1/customers/{c.id}", None)

    async def five() -> list[Any]:
        return await asyncio.gather(*(world.api.send(*call, headers={"x-api-version": version}) for _ in range(5)))

    answers = world.api.run(five())
    assert [answer.status_code for answer in answers] == [200] * 5
    assert len({answer.content for answer in answers}) == 1, "all five see the same"
    assert (seen(c).r, seen(c).u) == (100, 0)
    assert lines(c) == [(40 * UNIT, 0)], "one reset"


def test_case_145_shares_are_filled_again(world: World) -> None:
    c = world.holding(E(100))
    c.entities("e1", "e2")
    c.track(30, entity_id="e1")
    c.track(20, entity_id="e2")
    assert seen(c).r == 150
    world.api.advance_to(c.period_end())
    assert (seen(c).r, seen(c).u) == (200, 0)
    assert (seen(c, entity="e1").r, seen(c, entity="e2").r) == (100, 100)
    assert [row.balance for row in rows(c)] == [200 * UNIT]


@pytest.mark.parametrize(("path", "version"), [("/v1/balances/update", "1.2"), ("/v1/balances.update", "2.1")])
def test_case_146_a_reset_date_of_ones_own(world: World, path: str, version: str) -> None:
    c = world.holding(M(50))
    at = world.api.advance(0) + 10 * DAY_MS
    body = {"customer_id": c.id, "feature_id": "msg", "next_reset_at": at}
    world.api.post(path, body, headers={"x-api-version": version})
    c.track(10)
    assert (seen(c).r, c.period_end()) == (40, at)
    world.api.advance_to(at - 1000)
    assert (seen(c).r, c.period_end()) == (40, at)
    world.api.advance_to(at)
    assert (seen(c).r, c.period_end()) == (50, add_interval(at, MONTH, 1, 1))
    assert [row.next_reset_at for row in rows(c)] == [c.period_end()]


@pytest.mark.parametrize(("persist", "left"), [(True, 0), (False, 100)])
def test_case_148_a_debt_on_a_free_bucket(make_api: Callable[..., Api], persist: bool, left: int) -> None:
    world = World(make_api(persist_free_overage=persist))
    c = world.holding(M(100))
    c.track(200, overage_behavior="overflow")
    assert c.bal() == -100
    world.api.advance_to(c.period_end())
    shown = seen(c)
    assert (shown.r, shown.u) == (left, 100 - left)
    assert [row.balance for row in rows(c)] == [left * UNIT]
    assert [over for _, over in lines(c)] == [0], "carried or forgiven, but not billed"


def test_case_149_debts_of_entities_are_carried_one_by_one(make_api: Callable[..., Api]) -> None:
    world = World(make_api(persist_free_overage=True))
    c = world.holding(E(100))
    c.entities("e1", "e2")
    c.track(300, entity_id="e1", overage_behavior="overflow")
    c.track(130, entity_id="e2", overage_behavior="overflow")
    assert (c.bal(entity="e1"), c.bal(entity="e2")) == (-200, -30)
    world.api.advance_to(c.period_end())
    assert (seen(c, entity="e1").r, seen(c, entity="e2").r, seen(c).r) == (0, 70, 70)
    assert (c.bal(entity="e1"), c.bal(entity="e2"), c.bal()) == (-100, 70, -30)
    assert [(row.balance, row.over) for row in rows(c)] == [(-30 * UNIT, 100 * UNIT)]


# -- read once is read monthly ---------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """An item, what is used of it in its first two periods (of the second the reset is missed), and
    whether debts are carried. `refunds`: giving that back is exact however many resets ago it was; not
    so where it depends on the debt that one before the last found, which is not remembered."""

    bucket: Bucket
    used: tuple[Any, Any]
    persist: bool = False
    refunds: bool = True

    @property
    def per_entity(self) -> bool:
        return "entity_feature_id" in self.bucket.item


def roll(**fields: Any) -> dict[str, Any]:
    return {"rollover": {"duration": "month", "length": 12, **fields}}


FOREVER = {"duration": "forever"}
KINDS = {
    "no rollover": Kind(M(100), (30, 40)),
    "no maximum": Kind(M(100, **roll()), (30, 40)),
    "maximum": Kind(M(100, **roll(max=150)), (30, 40)),
    "maximum, two months": Kind(M(100, **roll(max=170, length=2)), (30, 40)),
    "one month": Kind(M(100, **roll(length=1)), (30, 40)),
    "maximum 0": Kind(M(100, **roll(max=0)), (30, 40)),
    "percentage": Kind(M(100, **roll(max_percentage=75)), (90, 40)),
    "forever": Kind(M(100, **roll(**FOREVER)), (30, 40)),
    "forever, maximum": Kind(M(100, **roll(max=180, **FOREVER)), (30, 90)),
    "every two weeks": Kind(M(100, **roll(max=330, length=2)).with_(interval="week", interval_count=2), (30, 40)),
    "quarterly": Kind(M(100, **roll(length=7)).with_(interval="quarter"), (30, 40)),
    "per entity": Kind(E(100), (30, 40)),
    "per entity, no maximum": Kind(E(100).with_(**roll()), (30, 40)),
    "per entity, maximum, two months": Kind(E(100).with_(**roll(max=170, length=2)), (30, 40)),
    "per entity, percentage": Kind(E(100).with_(**roll(max_percentage=75)), (90, 40)),
    "per entity, forever": Kind(E(100).with_(**roll(max=180, **FOREVER)), (30, 90)),
    "pay per use": Kind(U(100), (130, 145)),
    "pay per use, rollover": Kind(U(100, **roll(max=150)), (30, 190), refunds=False),
    "debt forgiven": Kind(M(100), (30, 350)),
    "debt carried": Kind(M(100), (30, 350), persist=True, refunds=False),
    "small debt carried": Kind(M(100), (30, 180), persist=True),
    "debt carried, rollover": Kind(M(100, **roll(max=150)), (30, 280), persist=True),
    "debt carried, forever": Kind(M(100, **roll(**FOREVER)), (30, 280), persist=True),
    "per entity, debt carried": Kind(E(100), (30, 350), persist=True),
    "per entity, debt carried, rollover": Kind(E(100).with_(**roll(max=150)), (30, 280), persist=True),
}
SEATS = ("e1", "e2", "e3")


def since(value: Any, base_ms: int) -> Any:
    """The same with instants counted from one's own beginning."""
    if isinstance(value, dict):
        return {name: since(inner, base_ms) for name, inner in value.items() if name != "plan_id"}
    if isinstance(value, list):
        return [since(inner, base_ms) for inner in value]
    if isinstance(value, int) and START_MS <= value < FAR_MS:
        return value - base_ms
    return value


def use(c: Customer, kind: Kind, amount: Any) -> list[str]:
    """Uses so much; of entities the first so much, the second half of it, the third nothing. The
    events."""
    if not kind.per_entity:
        return [c.track(amount, overage_behavior="overflow")["id"]]
    shares = {"e1": amount, "e2": amount // 2}
    return [c.track(share, entity_id=entity, overage_behavior="overflow")["id"] for entity, share in shares.items()]


def everything(c: Customer, kind: Kind, base_ms: int) -> dict[str, Any]:
    """All that can be seen of it, in every version, and what SQL has, with instants counted from the
    customer's beginning. A rollover's number is no part of it, nor when the last reset was caught up."""
    found: dict[str, Any] = {}
    for entity in ("", *(SEATS if kind.per_entity else ())):
        for name, headers in (("1.2", None), ("2.0", V20), ("2.1", V21), ("2.3", NEWEST)):
            found[name, entity] = shown_at(c, headers, entity=entity)
    for row in rows(c):
        fields = {**row._asdict(), "reset_at": 0, "reset_over": 0, "item": 0}
        fields.update({name: 0 for name in ("no", "parent") if row.rollover})
        found["row", row.no if not row.rollover else f"rollover {row.created_at - base_ms}"] = fields
    owed: dict[int, int] = {}
    cid = in_sql(c)
    query = select(ledger.c.period_end, ledger.c.over_units).where(ledger.c.cid == cid, ledger.c.over_units != 0)
    for period_end_ms, units in c.api.ctx.store.read_sync(lambda conn: conn.execute(query).all()):
        owed[period_end_ms - base_ms] = owed.get(period_end_ms - base_ms, 0) + units
    found["owed"] = owed
    return {str(name): since(value, base_ms) for name, value in found.items()}


def refund(c: Customer, event: str) -> Any:
    body = {"customer_id": c.id, "refund_of": event}
    return c.api.post("/v1/track", body, headers=V21)["value"]


@pytest.mark.parametrize("make_api", ["asgi"], indirect=True)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_three_missed_months_read_once_are_three_months_read_monthly(make_api: Callable[..., Api], kind: Kind) -> None:
    world = World(make_api(persist_free_overage=kind.persist))
    world.api.advance_to(START_MS)
    plan = world.plan(kind.bucket)
    monthly, once = world.customer(plan), world.customer(plan)
    bases, events = {c.id: c.period_end() for c in (monthly, once)}, {}
    for c in (monthly, once):
        if kind.per_entity:
            c.entities(*SEATS)
        events[c.id] = use(c, kind, kind.used[0])
    world.api.advance_to(max(bases.values()))
    ends = {c.id: c.period_end() for c in (monthly, once)}
    for c in (monthly, once):
        events[c.id] += use(c, kind, kind.used[1])
    assert everything(monthly, kind, bases[monthly.id]) == everything(once, kind, bases[once.id])
    due = max(ends.values())
    for _ in range(3):
        world.api.advance_to(due)
        monthly.check()
        due = monthly.period_end() + max(ends.values()) - min(ends.values())
    assert len(lines(monthly)) == 1 + 3 and len(lines(once)) == 1
    expected, found = everything(monthly, kind, bases[monthly.id]), everything(once, kind, bases[once.id])
    assert found == expected
    assert len(lines(once)) == 2, "one reset made up for three"
    if not kind.refunds:
        return
    for event, same in zip(events[monthly.id], events[once.id], strict=True):
        assert refund(monthly, event) == refund(once, same)
    expected, found = everything(monthly, kind, bases[monthly.id]), everything(once, kind, bases[once.id])
    assert found == expected, "given back after it"
