"""Plans that replace each other, attached as 1.2 callers do or as 2.x callers do, and what became of
the buckets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from sidecar.domain.layout import Row
from sidecar.store import customers
from sidecar.store.tables import ledger
from sync import tidy
from tests.cases.world import Bucket, Customer, World
from tests.http import Api

NEWER = {"x-api-version": "2.3.0"}
GROUP = {"group": "base"}
UNIT = 10**6
"""One unit as stored."""


@dataclass
class Desk:
    """Sells plans that replace each other, by one generation of the wire."""

    world: World
    newer: bool
    included: dict[tuple[str, str], Any] = field(default_factory=dict)

    @property
    def api(self) -> Api:
        return self.world.api

    def plan(self, *buckets: Bucket, monthly: int = 0, **fields: Any) -> tuple[str, dict[str, Any]]:
        """A plan that replaces the others made here, at a fixed price a month if that is given."""
        plan = self.world.plan(*buckets, **{**GROUP, **fields})
        if monthly:
            items = [{"price": monthly, "interval": "month"}, *(bucket.item for bucket in buckets)]
            self.api.post(f"/v1/products/{plan[0]}", {"items": items})
        for bucket in buckets:
            self.included[plan[0], bucket.item["feature_id"]] = bucket.item.get("included_usage") or 0
        return plan

    def attach(self, c: Customer, plan: tuple[str, dict[str, Any]], **fields: Any) -> None:
        """Attaches a plan, and pays for it."""
        plan_id, bought = plan
        if self.newer:
            quantities = [{"feature_id": f, "quantity": self.included[plan_id, f] + q} for f, q in bought.items()]
            body = {"customer_id": c.id, "plan_id": plan_id, "feature_quantities": quantities, **fields}
            url = self.api.post("/v1/billing.attach", body, headers=NEWER)["payment_url"]
        else:
            options = [{"feature_id": f, "quantity": q} for f, q in bought.items()]
            body = {"customer_id": c.id, "product_id": plan_id, "options": options, **fields}
            url = self.api.post("/v1/attach", body)["checkout_url"]
        if url:
            self.api.pay(url)

    def holding(self, *buckets: Bucket, monthly: int = 0) -> Customer:
        """A new customer holding a plan of these."""
        c = self.world.customer()
        self.attach(c, self.plan(*buckets, monthly=monthly))
        return c

    def switch(self, c: Customer, *buckets: Bucket, monthly: int = 0, **fields: Any) -> None:
        """Replaces the plan by one of these."""
        self.attach(c, self.plan(*buckets, monthly=monthly), **fields)


def ru(c: Customer, feature: str = "msg") -> tuple[Any, Any]:
    """(remaining, usage), which both generations must show alike."""
    shown = c.shown(feature)
    newer = c.api.call("GET", f"/v1/customers/{c.id}", headers=NEWER)["balances"][feature]
    assert newer["usage"] == shown.u
    assert newer["granted"] == shown.g
    return newer["remaining"], newer["usage"]


def rows(c: Customer, feature: str = "msg") -> list[Row]:
    """The buckets as SQL has them once it has all."""
    c.api.sync()
    found = c.api.ctx.store.read_sync(customers.load_snapshot, c.id)
    return [row for feature_id, row in found.rows if feature_id == feature]


def owed(c: Customer) -> list[Any]:
    """The units of overage that the ledger says are owed."""
    c.api.sync()
    query = select(ledger.c.over_units).where(ledger.c.over_units != 0)
    return sorted(c.api.ctx.store.read_sync(lambda conn: conn.execute(query).scalars().all()))


def archive(c: Customer) -> None:
    """Has the used-up buckets leave the hot state, as the worker does."""
    c.api.sync()
    now_ms = c.api.run(c.api.ctx.clock.now_ms())

    def decide(conn: Any) -> Any:
        found = tidy.used_up(conn, 0)
        assert found.ops, "nothing to archive"
        return [tidy.decide(conn, cid, ops, now_ms) for cid, ops in found.ops.items()]

    c.api.run(c.api.ctx.store.write(decide))
    c.api.run(c.api.ctx.engine.project(c.id))
    c.api.sync()


def rolled(maximum: Any = None, **fields: Any) -> dict[str, Any]:
    """The rollover of an item: for three months unless said otherwise."""
    return {"rollover": {**({} if maximum is None else {"max": maximum}), "duration": "month", "length": 3, **fields}}


def one_period_on(desk: Desk, *buckets: Bucket, used: int = 0) -> Customer:
    """A customer one period on."""
    c = desk.holding(*buckets)
    if used:
        c.track(used)
    desk.api.advance_to(c.period_end())
    c.check()
    return c
