"""P5: a refund or a release goes back to the buckets that paid: the rollovers, credit systems and
entities' shares too, and however far the customer or the bucket has gone since."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any, Callable, Iterator, NamedTuple

import pytest

from sidecar.domain.intervals import MONTH
from sidecar.engine import holds
from sync.duties import Duties
from tests.http import HOUR_MS, Api, audit
from tests.promises import books
from tests.promises.books import UNIT

CHECK, TRACK, FINALIZE = "/v1/check", "/v1/track", "/v1/balances.finalize"
ROLLING = {"rollover": {"max": 500, "duration": "month", "length": 3}}
V21 = {"x-api-version": "2.1"}
_names = itertools.count()


@pytest.fixture(scope="module")
def seller(module_api: Api) -> Api:
    api = module_api
    api.feature("msg")
    api.feature("calls", precision=0)
    api.feature("seats", "continuous_use")
    api.feature("pool", "credit_system", credit_schema=[{"metered_feature_id": "calls", "credit_cost": Decimal("1.4")}])
    api.feature("tank", "credit_system", credit_schema=[{"metered_feature_id": "calls", "credit_cost": Decimal("0.3")}])
    seats = {"feature_id": "seats", "included_usage": 10}
    monthly, paid = {"feature_id": "msg", "interval": "month"}, {"price": 1, "usage_model": "pay_per_use"}
    api.plan(
        "buckets", {"feature_id": "msg", "included_usage": 5, "interval": "hour"}, {**monthly, "included_usage": 20},
        {"feature_id": "msg", "included_usage": 30}, {**monthly, "included_usage": 10, "usage_limit": 60, **paid}, group="g",
    )
    api.plan("rollovers", {**monthly, "included_usage": 20, **ROLLING}, {"feature_id": "msg", "included_usage": 30}, group="g")
    api.plan(
        "credits", {"feature_id": "calls", "included_usage": 4, "interval": "month"}, {"feature_id": "pool", "included_usage": 20},
        {"feature_id": "pool", "included_usage": 7, "interval": "month"}, {"feature_id": "tank", "included_usage": 30}, group="g",
    )
    api.plan("shares", {**monthly, "included_usage": 8, "entity_feature_id": "seats"}, {**monthly, "included_usage": 6}, seats, group="g")
    api.plan("rolling-shares", {**monthly, "included_usage": 8, "entity_feature_id": "seats", **ROLLING}, seats, group="g")
    api.plan("other", {"feature_id": "msg", "included_usage": 40}, group="g")
    api.plan("top-up", {"feature_id": "msg", "included_usage": 25}, is_add_on=True)
    return api


@pytest.fixture
def api(seller: Api) -> Iterator[Api]:
    yield seller
    audit(seller)


class Case(NamedTuple):
    """A customer with several sources, and a spend that takes from all of them."""

    plan: str
    feature: str
    amount: int
    months: int = 0
    entities: tuple[str, ...] = ()
    entity: str = ""

    def customer(self, api: Api) -> str:
        return self.customers(api, 1)[0]

    def customers(self, api: Api, count: int) -> list[str]:
        """Customers who have lived through the same."""
        made = [api.customer(self.plan) for _ in range(count)]
        for c, name in itertools.product(made, self.entities):
            api.entity(c, name)
        for _ in range(self.months):
            monthly = [row for c in made for row in books.rows(api, c).values() if row.interval == MONTH]
            api.advance_to(max(row.next_reset_at for row in monthly))
            for c in made:
                api.track(c, self.feature, 7, **self.who)
        return made

    @property
    def who(self) -> dict[str, str]:
        return {"entity_id": self.entity} if self.entity else {}


CASES = {
    "buckets": Case("buckets", "msg", 80),
    "rollovers": Case("rollovers", "msg", 75, 2),
    "credits": Case("credits", "calls", 33),
    "all shares": Case("shares", "msg", 20, 0, ("e0", "e1", "e2")),
    "one share": Case("shares", "msg", 12, 0, ("e0", "e1", "e2"), "e1"),
    "rollovers of shares": Case("rolling-shares", "msg", 40, 2, ("e0", "e1", "e2")),
}


def loaded_again(api: Api, c: str) -> None:
    books.evict(api, c)


def after_a_loss(api: Api, c: str) -> None:
    books.lose_redis(api)


BETWEEN: dict[str, Callable[[Api, str], Any]] = {"at once": lambda api, c: None, "loaded again": loaded_again, "after a loss": after_a_loss}


def spent(api: Api, c: str, case: Case, ends: int = 0) -> tuple[str, str]:
    """Holds the amount; the hold's name and its event."""
    name = f"l{next(_names)}"
    asked = {"enabled": True, "lock_id": name, **({"expires_at": ends} if ends else {})}
    answer = api.check(c, case.feature, case.amount, lock=asked, **case.who)
    assert answer["allowed"], answer
    return name, answer["id"]


def refund(c: str, event: str, value: Any = None, **fields: Any) -> dict[str, Any]:
    return {"customer_id": c, "refund_of": event, **({} if value is None else {"value": value}), **fields}


def assert_back(api: Api, c: str, before: dict[tuple[int, str], int]) -> None:
    assert books.balances(api, c) == before
    in_sql = {row.no: row.balance for _, row in books.snapshot(api, c).rows}
    assert in_sql == {no: left for (no, entity), left in before.items() if not entity}


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("name", CASES)
def test_a_release_and_an_expiry(api: Api, name: str, between: str) -> None:
    """P5 for holds: released, confirmed at nothing, and expired unattended, every bucket has what it had."""
    case = CASES[name]
    c = case.customer(api)
    before = books.balances(api, c)
    for end in ({"action": "release"}, {"action": "confirm", "override_value": 0}):
        lock, _ = spent(api, c, case)
        assert sum(a != b for a, b in zip(books.balances(api, c).values(), before.values())) > 1, "several paid"
        BETWEEN[between](api, c)
        api.post(FINALIZE, {"lock_id": lock, **end})
        assert_back(api, c, before)
    lock, _ = spent(api, c, case, api.run(api.ctx.clock.now_ms()) + 60_000)
    BETWEEN[between](api, c)
    if name != "buckets":  # whose first one resets within the hour
        api.advance(60_001)
        api.run(holds.expire_due(api.ctx.engine))
        assert api.post(FINALIZE, {"lock_id": lock, "action": "release"}, 410)["code"] == "lock_expired"
    else:
        api.post(FINALIZE, {"lock_id": lock, "action": "release"})
    assert_back(api, c, before)


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("name", CASES)
def test_a_refund_of_an_event(api: Api, name: str, between: str) -> None:
    """P5 for exact refunds: in parts, each of which leaves what a smaller spend would have, and the
    rest at last; nothing is left of it then."""
    case = CASES[name]
    c, other = case.customers(api, 2)
    twin = list(zip(sorted(books.balances(api, c)), sorted(books.balances(api, other))))
    before = books.balances(api, c)
    event = api.track(c, case.feature, case.amount, **case.who)["id"]
    BETWEEN[between](api, c)
    returned = 0
    for part in (1, 6, case.amount // 3):
        api.post(TRACK, refund(c, event, -part))
        returned += part
        used = api.track(other, case.feature, case.amount - returned, **case.who)["id"]
        mine, others = books.balances(api, c), books.balances(api, other)
        if case.plan != "credits":  # which convert each call as a whole
            assert [mine[a] for a, _ in twin] == [others[b] for _, b in twin]
        api.post(TRACK, refund(other, used))
    BETWEEN[between](api, c)
    assert api.post(TRACK, refund(c, event), headers=V21)["value"] == returned - case.amount
    assert_back(api, c, before)
    assert api.post(TRACK, refund(c, event), headers=V21)["value"] == 0
    api.refused(TRACK, refund(c, event, -1, overage_behavior="reject"), 400, "insufficient_balance")
    assert_back(api, c, before)


def tidy_up(api: Api) -> None:
    """What the worker does with buckets that are used up."""
    duties = Duties(api.ctx.engine, api.ctx.store, api.settings.partitions)
    api.sync()
    while api.run(duties.archive_used_up()):
        api.sync()


@pytest.mark.parametrize("between", BETWEEN)
def test_after_the_drained_bucket_left_redis(api: Api, between: str) -> None:
    """P5: it comes back for what is its own."""
    c = api.customer("other")
    for _ in range(6):
        api.attach(c, "top-up")
    before = books.balances(api, c)
    event = api.track(c, "msg", 180)["id"]
    tidy_up(api)
    gone = before.keys() - books.balances(api, c).keys()
    assert gone, "some left"
    BETWEEN[between](api, c)
    api.post(TRACK, refund(c, event, -170))
    assert books.balances(api, c).keys() == before.keys()
    api.post(TRACK, refund(c, event))
    assert_back(api, c, before)


def test_after_its_plan_was_replaced(api: Api) -> None:
    """P5: a bucket that is gone passes its share to the plain rule; one that is there still gets its
    own."""
    c = api.customer("buckets")
    api.attach(c, "top-up")
    (kept,) = [row.no for row in books.rows(api, c).values() if row.plan_id == "top-up"]
    event = api.track(c, "msg", 85)["id"]
    assert books.balances(api, c)[kept, ""] == 5 * UNIT
    api.attach(c, "other")
    (new,) = books.rows(api, c).keys() - {kept}
    api.track(c, "msg", 33)
    assert books.balances(api, c) == {(new, ""): 7 * UNIT, (kept, ""): 5 * UNIT}
    api.post(TRACK, refund(c, event, -20))
    assert books.balances(api, c) == {(new, ""): 7 * UNIT, (kept, ""): 25 * UNIT}
    api.post(TRACK, refund(c, event, -30))
    assert books.balances(api, c) == {(new, ""): 37 * UNIT, (kept, ""): 25 * UNIT}
    api.post(TRACK, refund(c, event))
    assert books.balances(api, c) == {(new, ""): 40 * UNIT, (kept, ""): 25 * UNIT}, "no bucket above its grant"


@pytest.mark.parametrize("release", [False, True], ids=["refund", "release"])
def test_after_its_reset(api: Api, release: bool) -> None:
    """P5: what it paid before a reset joins the rollover made there; without one it is dropped, because
    the reset refilled the bucket; the other buckets get theirs."""
    for plan, used, before, after in (("rollovers", 45, [20, 5], [20, 20, 30]), ("shares", 5, [6], [6])):
        case = Case(plan, "msg", used)
        c = case.customer(api)
        (end,) = {row.next_reset_at for row in books.state(api, c).features["msg"] if row.next_reset_at}
        api.advance_to(end - HOUR_MS)
        lock, event = spent(api, c, case)
        if not release:
            api.post(FINALIZE, {"lock_id": lock, "action": "confirm"})
        api.advance_to(end)
        assert left(api, c) == before
        if release:
            api.post(FINALIZE, {"lock_id": lock, "action": "release"})
        else:
            api.post(TRACK, refund(c, event))
        assert left(api, c) == after


def left(api: Api, c: str) -> list[int]:
    """What the customer's own buckets and rollovers of messages have left, in spending order."""
    return [row.balance // UNIT for row in books.state(api, c).features["msg"] if not row.per_entity]


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("name", ["buckets", "rollovers", "credits"])
def test_twice_at_once_and_at_once_with_a_track(api: Api, name: str, between: str) -> None:
    """P5 in a race: of refunds of one event at once no more comes back than was taken, and to whom it
    was taken from; a track beside them is as if it came before or after."""
    case = CASES[name]
    c = case.customer(api)
    before = books.balances(api, c)
    event = api.track(c, case.feature, case.amount)["id"]
    BETWEEN[between](api, c)
    calls = [("POST", TRACK, refund(c, event, *part)) for part in ((), (-5,), (-20,), (), (-case.amount,))]
    assert {answer.status_code for answer in api.together(*calls)} == {200}
    assert_back(api, c, before)
    event = api.track(c, case.feature, case.amount)["id"]
    BETWEEN[between](api, c)
    spend = ("POST", TRACK, {"customer_id": c, "feature_id": case.feature, "value": 3})
    first, second, third = api.together(("POST", TRACK, refund(c, event)), spend, ("POST", TRACK, refund(c, event)))
    assert {answer.status_code for answer in (first, second, third)} == {200}
    api.post(TRACK, refund(c, second.json()["id"]))
    assert_back(api, c, before)
