"""Promise: whatever changes what caps a customer, the step that makes the change carries the caps with
it, and nothing else does. By SQL alone: what is decided and not yet applied counts."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Callable

import pytest
from sqlalchemy import Connection, delete, insert

from sidecar.billing.change import Change
from sidecar.billing.controls import Caps, pack
from sidecar.catalog import repository
from sidecar.catalog.controls import NO_CONTROLS, Controls, OverageAllowed, SpendLimit, UsageLimit
from sidecar.catalog.model import Feature, Item, Plan
from sidecar.catalog.snapshot import Catalog, read_catalog
from sidecar.store import customers, outbox, tables
from sidecar.store.db import Store

MSG_5 = Controls(spend_limits=(SpendLimit("msg", overage_limit=Decimal(5)),))
ALL_7 = Controls(spend_limits=(SpendLimit(None, overage_limit=Decimal(7)),))
DAILY = Controls(usage_limits=(UsageLimit("msg", True, Decimal(3), "day"),))
OFF = Controls(overage_allowed=(OverageAllowed("msg", False),))
SPEND_5, DAILY_3, NO_OVERAGE = (
    pack(Caps(((0, 5),))), pack(Caps(windows=((3, 3, 0),))), pack(Caps(overage=0)),
)


def monthly(feature_id: str) -> Item:
    return Item(feature_id, Decimal(10), interval="month")


class Shop:
    """A customer in a database with some plans; what each change decides for it."""

    def __init__(self, store: Store):
        self.store = store
        store.write_sync(self._stock)
        self.catalog: Catalog = store.read_sync(read_catalog)
        self.cid: int = store.write_sync(lambda conn: customers.create(conn, "c", 0, 1)[0].cid)
        self.seen = 0

    def _stock(self, conn: Connection) -> None:
        for feature in (
            Feature("msg", "M", "single_use", precision=0), Feature("calls", "C", "single_use", precision=1),
            Feature("sso", "S", "boolean"), Feature("seats", "Seats", "continuous_use"),
        ):
            repository.insert_feature(conn, feature, 1)
        for plan in (
            Plan(0, "free", 0, "Free", items=(monthly("msg"),)),
            Plan(0, "capped", 0, "Capped", items=(monthly("msg"),), controls=DAILY),
            Plan(0, "more", 0, "More", is_add_on=True, items=(monthly("calls"), Item("sso"))),
        ):
            repository.insert_plan(conn, plan, 1)

    def ops(self, change: Callable[[Change], Any], catalog: Catalog | None = None) -> list[list[Any]]:
        """The operations of the steps that a change decides; all of caps at the end of their step."""

        def write(conn: Connection) -> list[list[Any]]:
            started = Change.of(conn, catalog or self.catalog, 1_700_000_000_000, "c")
            change(started)
            started.commit_step()
            steps = outbox.after(conn, self.cid, self.seen)
            self.seen = max([self.seen, *(step.version for step in steps)])
            return [op for step in steps for op in outbox.operations(step)]

        return self.store.write_sync(write)

    def caps(self, change: Callable[[Change], Any], catalog: Catalog | None = None) -> list[tuple[Any, ...]]:
        """Those of them that are about caps."""
        return [tuple(op[1:]) for op in self.ops(change, catalog) if op[0] == "caps"]

    def apply(self, *rows: tuple[str, str, bytes]) -> None:
        """What the sync worker does: SQL's caps are these, and no step is left."""

        def write(conn: Connection) -> None:
            conn.execute(delete(tables.outbox))
            conn.execute(delete(tables.caps))
            for feature_id, entity_id, data in rows:
                conn.execute(insert(tables.caps).values(cid=self.cid, feature_id=feature_id, entity_id=entity_id, data=data))

        self.store.write_sync(write)

    def plan(self, plan_id: str) -> Plan:
        return self.catalog.plans[plan_id]

    def entity(self, conn: Connection, entity_id: str) -> int:
        inserted = conn.execute(tables.entities.insert().values(
            cid=self.cid, id=entity_id, feature_id="seats", status="active", created_at=1
        ))
        return int(inserted.inserted_primary_key[0])  # type: ignore[index]


@pytest.fixture
def shop(store: Store) -> Shop:
    return Shop(store)


def sets(controls: Controls) -> Callable[[Change], None]:
    return lambda change: change.set_controls(controls)


def test_without_controls_a_step_has_no_caps(shop: Shop) -> None:
    assert [op[0] for op in shop.ops(lambda change: change.enable(shop.plan("free"), {}))] == ["add"]
    assert shop.ops(lambda change: None) == [] and shop.ops(sets(NO_CONTROLS)) == []


def test_setting_replacing_and_clearing_are_steps_of_what_differs(shop: Shop) -> None:
    assert shop.ops(sets(MSG_5)) == [["caps", "msg", "", SPEND_5]]
    assert shop.ops(sets(MSG_5)) == [], "decided already, though not applied"
    assert shop.caps(sets(OFF)) == [("msg", "", NO_OVERAGE)]
    shop.apply(("msg", "", NO_OVERAGE))
    assert shop.ops(sets(OFF)) == [], "applied already"
    assert shop.caps(sets(NO_CONTROLS)) == [("msg", "", b"")]
    assert shop.ops(sets(NO_CONTROLS)) == []


def test_a_cap_that_sql_has_and_nobody_asks_for_goes_with_the_next_step(shop: Shop) -> None:
    shop.apply(("msg", "e1", SPEND_5))
    assert shop.caps(lambda change: change.enable(shop.plan("free"), {})) == [("msg", "e1", b"")]


def test_a_plan_brings_and_takes_its_caps_in_its_own_step(shop: Shop) -> None:
    ops = shop.ops(lambda change: change.enable(shop.plan("capped"), {}))
    assert [op[0] for op in ops] == ["add", "caps"] and ops[1][1:] == ["msg", "", DAILY_3]

    def switch(change: Change) -> None:
        change.enable(shop.plan("free"), {}, replaced=change.holdings.main_plan("", ""))

    ops = shop.ops(switch)
    assert [op[0] for op in ops] == ["add", "drop", "caps"] and ops[-1][1:] == ["msg", "", b""]


def test_the_customers_entry_hides_the_plans(shop: Shop) -> None:
    shop.ops(lambda change: change.enable(shop.plan("capped"), {}))
    off = Controls(usage_limits=(UsageLimit("msg", False, Decimal(1), "day"),))
    assert shop.caps(sets(off)) == [("msg", "", b"")]
    assert shop.caps(sets(NO_CONTROLS)) == [("msg", "", DAILY_3)]


def test_an_entry_about_every_feature_reaches_what_comes_later(shop: Shop) -> None:
    assert shop.caps(sets(ALL_7)) == [], "nothing is held yet"
    assert shop.caps(lambda change: change.enable(shop.plan("free"), {})) == [("msg", "", pack(Caps(((0, 7),))))]
    assert shop.caps(lambda change: change.enable(shop.plan("more"), {})) == [("calls", "", pack(Caps(((0, 70),))))]


def test_an_entity_has_its_own_and_loses_it_when_it_closes(shop: Shop) -> None:
    numbers: dict[str, int] = {}

    def opens(change: Change) -> None:
        for entity_id in ("e1", "e2"):
            numbers[entity_id] = shop.entity(change.conn, entity_id)
            change.ops.append(["entity", entity_id, "seats", 1, 1])
        change.set_entity(numbers["e1"], controls=MSG_5)

    ops = shop.ops(opens)
    assert [op[0] for op in ops] == ["entity", "entity", "caps"] and ops[-1][1:] == ["msg", "e1", SPEND_5]
    assert shop.caps(lambda change: change.set_entity(numbers["e2"], controls=OFF)) == [("msg", "e2", NO_OVERAGE)]
    assert shop.caps(sets(DAILY)) == [("msg", "", DAILY_3)], "an entity's field has its own entries only"

    def closes(change: Change) -> None:
        change.ops.append(["unentity", "e1", "seats", 1])
        change.set_entity(numbers["e1"], status="closing")

    ops = shop.ops(closes)
    assert [op[0] for op in ops] == ["unentity", "caps"] and ops[-1][1:] == ["msg", "e1", b""]


def test_a_plan_of_an_entity_caps_that_entity(shop: Shop) -> None:
    def attach(change: Change) -> None:
        shop.entity(change.conn, "e1")
        change.enable(shop.plan("capped"), {}, "e1")

    assert shop.caps(attach) == [("msg", "e1", DAILY_3)]


def test_several_steps_of_one_change_carry_the_caps_once(shop: Shop) -> None:
    def steps(change: Change) -> None:
        change.set_controls(MSG_5)
        change.commit_step()
        change.enable(shop.plan("free"), {})
        change.commit_step()
        change.set_controls(NO_CONTROLS)

    assert [op[0] for op in shop.ops(steps)] == ["caps", "add", "caps"]


def test_a_process_that_does_not_know_the_catalog_yet_loses_no_cap(shop: Shop) -> None:
    shop.ops(lambda change: change.enable(shop.plan("capped"), {}))
    assert shop.caps(sets(MSG_5), catalog=Catalog()) == [("msg", "", pack(Caps(((0, 5),), -1, ((3, 3, 0),))))]


def test_a_deletion_is_only_that(shop: Shop) -> None:
    shop.ops(sets(MSG_5))
    assert shop.ops(lambda change: change.ops.append(["delete"])) == [["delete"]]
