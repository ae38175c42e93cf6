"""One change of a customer's structure, inside one SQL write transaction.

A `Change` locks the customer's row, collects operations, and on `commit_step` takes the next
structure version and writes the outbox row: the step. What plans and billing controls cap goes with
whatever step changes it. The caller's transaction makes all of it
happen or none, and the engine projects the step afterwards. Redis is not touched here.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any, Mapping

from sqlalchemy import Connection, func, null, select, update

from ..catalog.controls import Controls
from ..catalog.model import Plan
from ..catalog.snapshot import Catalog
from ..domain.layout import Row
from ..errors import not_found
from ..store import customers, outbox
from ..store.customers import BUCKET_COLUMNS, Customer
from ..store.tables import buckets, customer_plans, entities
from . import caps, steps, switches
from .controls import Key, changes as caps_changes
from .holdings import HeldBucket, HeldPlan, Holdings, after_steps, cycle_anchor, held_plans
from .prices import Quantities
from .steps import Op
from .switches import Moves

ACTIVE = "active"
EXPIRED = "expired"


class Change:
    """The customer, locked until the transaction ends, and what is to become of it."""

    def __init__(self, conn: Connection, catalog: Catalog, now_ms: int, customer: Customer):
        self.conn = conn
        self.catalog = catalog
        self.now_ms = now_ms
        self.customer = customer
        self.ops: list[Op] = []
        self._version = customer.structure_version
        self._buckets_made = 0
        self._caps: dict[Key, bytes] | None = None
        self._caps_current = False

    @classmethod
    def of(cls, conn: Connection, catalog: Catalog, now_ms: int, customer_id: str) -> Change:
        """Locks a customer by its id. Raises ApiError 404 `customer_not_found`."""
        found = customers.by_id(conn, customer_id)
        change = cls.of_cid(conn, catalog, now_ms, found.cid) if found is not None else None
        if change is None:
            raise not_found("customer", customer_id)
        return change

    @classmethod
    def of_cid(cls, conn: Connection, catalog: Catalog, now_ms: int, cid: int) -> Change | None:
        """Locks a customer by its internal id; None if it was deleted."""
        customer = customers.lock(conn, cid)
        if customer is None or customer.deleted_at is not None:
            return None
        return cls(conn, catalog, now_ms, customer)

    @property
    def cid(self) -> int:
        return self.customer.cid

    @cached_property
    def holdings(self) -> Holdings:
        """What the customer held before this change."""
        return read_holdings(self.conn, self.catalog, self.cid)

    def enable(
        self, plan: Plan, quantities: Quantities, entity_id: str = "", replaced: HeldPlan | None = None,
        moves: Moves = Moves(),
    ) -> int:
        """Gives the customer (or one of its entities) a plan in place of `replaced`; `moves` says what
        goes over from that. Returns the uid of the customer's new plan. Raises ApiError 400
        `invalid_options`."""
        inserted = self.conn.execute(customer_plans.insert().values(
            cid=self.cid, plan_uid=plan.uid, plan_id=plan.id, entity_id=entity_id or None, status=ACTIVE,
            quantity=1, options={feature_id: str(units) for feature_id, units in quantities.items()},
            started_at=self.now_ms, anchor=cycle_anchor(replaced, plan, self.now_ms),
        ))
        self._caps_current = False
        uid = int(inserted.inserted_primary_key[0])  # type: ignore[index]
        first_no = self.customer.next_bucket_no + self._buckets_made
        new = steps.Enabled(plan, uid, quantities, entity_id, self.now_ms, first_no)
        old = self.holdings.buckets_of(replaced) if replaced is not None else ()
        same_plan = replaced is not None and replaced.plan.id == plan.id
        ops = switches.enable(self.catalog.features, self.holdings, new, old, moves, same_plan)
        self.ops += ops
        self._buckets_made += steps.rows_made(ops)
        if replaced is not None:
            self.end(replaced)
        return uid

    def new_bucket_no(self) -> int:
        """The number of a bucket that an operation of the step is about to make."""
        self._buckets_made += 1
        return self.customer.next_bucket_no + self._buckets_made - 1

    def end(self, held: HeldPlan) -> None:
        """Marks a plan as no longer held. Its buckets go by operations of their own."""
        self.conn.execute(
            update(customer_plans)
            .where(customer_plans.c.uid == held.uid)
            .values(status=EXPIRED, ended_at=self.now_ms)
        )
        self._caps_current = False

    @property
    def controls(self) -> Controls:
        """The customer's own controls."""
        return Controls.from_json(self.customer.billing_controls)

    def set_controls(self, controls: Controls) -> None:
        """Writes the customer's own controls; what that caps goes with the next step."""
        stored = controls.to_json()
        customers.change(self.conn, self.cid, billing_controls=stored or null())
        self.customer = replace(self.customer, billing_controls=stored)
        self._caps_current = False

    def set_entity(self, uid: int, **values: Any) -> None:
        """Writes columns of an entity's row, by its number: `status`, or `controls`."""
        if "controls" in values:
            values["billing_controls"] = values.pop("controls").to_json() or null()
        self.conn.execute(update(entities).where(entities.c.uid == uid).values(**values))
        self._caps_current = False

    def commit_step(self) -> int:
        """Writes the step of the operations collected since the last one, and of what they and the
        controls change of the caps. Returns the structure version after it: the present one if there
        is nothing to do."""
        self._cap()
        if not self.ops:
            return self._version
        version, _ = customers.take_version(self.conn, self.cid, self._buckets_made)
        assert version == self._version + 1, "the row lock keeps others from taking a version"
        outbox.append(self.conn, self.cid, version, self.ops, self.now_ms)
        self._version, self._buckets_made, self.ops = version, 0, []
        return version

    def _cap(self) -> None:
        """Adds the operations that make the caps what plans and controls say now."""
        kinds = {op[0] for op in self.ops}
        if "delete" in kinds or self._caps_current and "add" not in kinds:
            return
        before = caps.decided(self.conn, self.cid) if self._caps is None else self._caps
        self._caps = caps.wanted(self.conn, self.cid, self.controls, self.ops)
        self._caps_current = True
        self.ops += caps_changes(before, self._caps)


def plan_rows(conn: Connection, cids: list[int]) -> list[Mapping[str, Any]]:
    """The rows of `customer_plans` that these customers hold now, oldest first."""
    return list(conn.execute(
        select(customer_plans)
        .where(customer_plans.c.cid.in_(cids), customer_plans.c.ended_at.is_(None))
        .order_by(customer_plans.c.uid)
    ).mappings())


def read_holdings(conn: Connection, catalog: Catalog, cid: int) -> Holdings:
    """What a customer holds: plans, and buckets as of the last decided step."""
    stored = conn.execute(
        select(buckets.c.feature_id, buckets.c.customer_plan_uid, buckets.c.archived, *BUCKET_COLUMNS)
        .where(buckets.c.cid == cid, buckets.c.removed_at.is_(None))
    )
    applied = [HeldBucket(row[0], row[1] or 0, Row(*row[3:]), row[2]) for row in stored]
    decided = [{"ops": outbox.operations(step)} for step in outbox.after(conn, cid, -1)]
    counted = select(entities.c.feature_id, func.count()).where(entities.c.cid == cid).group_by(entities.c.feature_id)
    counts = {row[0]: row[1] for row in conn.execute(counted)}
    return Holdings(held_plans(catalog, plan_rows(conn, [cid])), after_steps(applied, decided), counts)
