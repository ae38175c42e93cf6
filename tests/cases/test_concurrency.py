"""Worked cases, group Concurrency, and others in which calls race."""

from __future__ import annotations

from sqlalchemy import func, select

from sidecar.engine import keys, loader, scripts
from sidecar.store import customers, tables
from tests.cases.world import E, Customer, M, U, World


def tracks(c: Customer, count: int, value: int = 1, **fields: object) -> list:
    body = {"customer_id": c.id, "feature_id": "msg", "value": value, **fields}
    answers = c.api.together(*[("POST", "/v1/track", body)] * count)
    return [answer.status_code for answer in answers]


def test_case_164_parallel_tracks_are_exact(world: World) -> None:
    c = world.holding(M(100))
    assert tracks(c, 50, 2) == [200] * 50
    assert c.ru() == (0, 100)
    assert sum(e["applied"] for e in world.api.events(c.id)) == 100_000_000


def test_a_hundred_parallel_rejecting_tracks_admit_exactly_what_fits(world: World) -> None:
    c = world.holding(M(73))
    statuses = tracks(c, 100, overage_behavior="reject")
    assert (statuses.count(200), statuses.count(400)) == (73, 27)
    assert c.ru() == (0, 73)


def test_a_hundred_parallel_capped_tracks_apply_exactly_what_is_there(world: World) -> None:
    c = world.holding(M(64))
    assert tracks(c, 100) == [200] * 100
    assert c.ru() == (0, 64)
    assert sorted(e["applied"] for e in world.api.events(c.id)) == [0] * 36 + [1_000_000] * 64


def test_parallel_checks_with_send_event_admit_exactly_what_fits(world: World) -> None:
    c = world.holding(M(10))
    body = {"customer_id": c.id, "feature_id": "msg", "send_event": True}
    allowed = [a.json()["allowed"] for a in world.api.together(*[("POST", "/v1/check", body)] * 30)]
    assert allowed.count(True) == 10
    assert c.ru() == (0, 10)


def test_case_170_concurrent_creates_leave_one_row(world: World) -> None:
    world.plan(M(10), is_default=True)
    answers = world.api.together(*[("POST", "/v1/customers", {"id": "one"})] * 20)
    assert [a.status_code for a in answers] == [200] * 20
    c = tables.customers.c
    rows = world.api.ctx.store.read_sync(lambda conn: conn.execute(select(func.count()).where(c.id == "one")).scalar_one())
    assert rows == 1
    assert Customer(world, "one").bal() == 10


def test_case_170_an_older_snapshot_never_overwrites_a_newer_counter(world: World) -> None:
    api, c = world.api, world.holding(M(100))
    engine = api.ctx.engine
    p = engine.partition_of(c.id)
    c.track(10)
    api.sync()
    old = api.ctx.store.read_sync(customers.load_snapshot, c.id)
    assert old is not None
    names = (keys.meta(p), keys.customer(p, c.id), keys.entities(p, c.id), keys.locks(p, c.id), keys.holds(p))

    def load() -> list:
        return api.run(engine.run(scripts.LOAD, p, names, loader._load_args(old)))

    c.track(20)
    assert load()[0] == b"EXISTS"
    assert c.bal() == 70
    api.sync()
    cursor = api.ctx.store.read_sync(customers.load_snapshot, c.id).cursor
    assert api.run(engine.evict(c.id, *cursor))
    assert load() == [b"BEHIND"], "the customer was evicted after this snapshot was taken"
    assert c.bal() == 70, "loaded again as SQL has it now"


def test_case_218_two_first_checks_make_one_customer(world: World) -> None:
    world.plan(M(100), is_default=True)
    body = {"customer_id": "new", "feature_id": "msg"}
    for headers in ({}, {"x-api-version": "1.2.0"}):
        answers = world.api.together(*[("POST", "/v1/check", body)] * 2)
        assert [a.json()["allowed"] for a in answers] == [True, True]
    c = tables.customers.c
    rows = world.api.ctx.store.read_sync(lambda conn: conn.execute(select(func.count()).where(c.id == "new")).scalar_one())
    assert rows == 1


def test_case_143_five_readers_after_the_due_time_reset_once(world: World) -> None:
    c = world.holding(M(100))
    c.track(30)
    world.api.advance_to(c.period_end())
    answers = world.api.together(*[("GET", f"/v1/customers/{c.id}")] * 5)
    assert {a.json()["features"]["msg"]["balance"] for a in answers} == {100}
    world.api.sync()
    t = tables.ledger.c
    resets = world.api.ctx.store.read_sync(lambda conn: conn.execute(select(t.delta).where(t.kind == "reset")).all())
    assert [tuple(row) for row in resets] == [(30_000_000,)]


def test_case_151_like_racing_tracks_after_the_due_time_reset_once(world: World) -> None:
    """Case 151 without its rollover."""
    c = world.holding(M(400))
    c.track(200)
    world.api.advance_to(c.period_end())
    assert tracks(c, 5, 10) == [200] * 5
    assert c.ru() == (350, 50)


def test_case_229_unsynced_usage_survives_changes_of_structure(world: World) -> None:
    api, c = world.api, world.holding(M(100))
    c.track(5)
    api.call("POST", f"/v1/customers/{c.id}", {"name": "Renamed"})
    c.attach(world.add_on(M(7).of("other")))
    c.attach(world.plan(U(1).of("third")))  # paid on the page
    assert c.bal() == 95
    api.sync()
    (row,) = [row for feature, row in api.ctx.store.read_sync(customers.load_snapshot, c.id).rows if feature == "msg"]
    assert row.balance == 95_000_000


def test_case_196_like_entities_in_parallel_spend_their_own(world: World) -> None:
    """The numbers of case 196, by tracks."""
    c = world.holding(E(50), M(100))
    c.entities("e1", "e2")
    body = {"customer_id": c.id, "feature_id": "msg"}
    world.api.together(
        *[("POST", "/v1/track", {**body, "entity_id": "e1", "value": 1})] * 15,
        *[("POST", "/v1/track", {**body, "entity_id": "e2", "value": 1})] * 25,
        *[("POST", "/v1/track", {**body, "value": 2})] * 20,
    )
    assert c.parts(entity="e1") == [(35, 15), (60, 40)]
    assert c.parts(entity="e2") == [(25, 25), (60, 40)]
    assert c.shown().r == 120
