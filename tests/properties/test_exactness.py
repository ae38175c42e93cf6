"""Guarantee: at every precision nothing drifts, not by the last unit, over a thousand random calls; and what
would pass the range of exact integers is refused in every verb before anything is written."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from sidecar.domain.quantities import QUANTITY_MAX
from tests.http import Api, audit, loop_runner, make_api, module_api, module_apps  # noqa: F401
from tests.promises import books

CALLS = 10_000 if os.environ.get("SIDECAR_LONG") == "1" else 1_000
V21 = {"x-api-version": "2.1"}
CHECK, TRACK, FINALIZE = "/v1/check", "/v1/track", "/v1/balances.finalize"
COST = Fraction(3, 10)


@dataclass
class Book:
    """One bucket, kept in whole units of the last place."""

    granted: int
    balance: int
    events: dict[str, int] = field(default_factory=dict)
    """What is left to give back of each event."""
    holds: dict[str, int] = field(default_factory=dict)

    @property
    def free(self) -> int:
        return max(0, self.balance)

    def take(self, units: int) -> int:
        """What is there of it."""
        taken = min(units, self.free)
        self.balance -= taken
        return taken

    def give(self, units: int) -> None:
        """Never above the grant."""
        self.balance = max(self.balance, min(self.granted, self.balance + units))


class Sequence:
    """Random calls on one bucket of `units` and one of credits that `member` draws from."""

    def __init__(self, api: Api, precision: int, draw: random.Random):
        self.api, self.precision, self.draw = api, precision, draw
        self.one = 10**precision
        api.feature("units", precision=precision)
        api.feature("member", precision=precision)
        api.feature("pool", "credit_system", precision=precision, credit_schema=[
            {"metered_feature_id": "member", "credit_cost": Decimal(COST.numerator) / COST.denominator}
        ])
        grants = [draw.randrange(QUANTITY_MAX // 8, QUANTITY_MAX // 4) for _ in range(2)]
        items = [{"feature_id": f, "included_usage": self.text(g)} for f, g in zip(("units", "pool"), grants)]
        api.plan("base", *items)
        self.c = api.customer("base")
        self.units, self.pool = (Book(grant, grant) for grant in grants)
        self.made = 0

    def text(self, units: int) -> Decimal:
        """The decimal of so many units of the last place, digit by digit."""
        return Decimal(units).scaleb(-self.precision)

    def amount(self) -> int:
        return self.draw.randrange(1, 10 ** self.draw.randrange(1, 16))

    def post(self, path: str, status: int = 200, **body: Any) -> Any:
        return self.api.post(path, {"customer_id": self.c, **body}, status, headers=V21)

    def remaining(self, answer: Any, book: Book) -> None:
        assert answer["balance"]["remaining"] == self.text(book.free), answer

    def step(self) -> None:
        kinds = ("track", "send", "member", "refund", "hold", "finalize", "refund_of", "set", "credits back")
        getattr(self, self.draw.choices(kinds, (6, 3, 4, 3, 3, 3, 4, 1, 2))[0].replace(" ", "_"))()

    def track(self) -> None:
        units = self.amount()
        answer = self.post(TRACK, feature_id="units", value=self.text(units))
        self.units.events[answer["event_id"]] = self.units.take(units)
        self.remaining(answer, self.units)

    def ask(self, units: int, **fields: Any) -> Any:
        answer = self.post(CHECK, feature_id="units", required_balance=self.text(units), **fields)
        assert answer["allowed"] is (units <= self.units.free)
        if answer["allowed"]:
            self.units.take(units)
        self.remaining(answer, self.units)
        return answer

    def send(self) -> None:
        self.ask(self.amount(), send_event=True)

    def member(self) -> None:
        units = self.amount()
        credits = -(-units * COST.numerator // COST.denominator)
        fits = credits <= self.pool.free
        answer = self.post(TRACK, 200 if fits else 400, feature_id="member", value=self.text(units), overage_behavior="reject")
        if fits:
            self.pool.take(credits)
            self.pool.events[answer["event_id"]] = credits

    def credits_back(self) -> None:
        if self.pool.events:
            event = self.draw.choice(sorted(self.pool.events))
            self.post(TRACK, refund_of=event)
            self.pool.give(self.pool.events.pop(event))

    def refund(self) -> None:
        units = self.amount()
        answer = self.post(TRACK, feature_id="units", value=-self.text(units))
        self.units.give(units)
        self.remaining(answer, self.units)

    def refund_of(self) -> None:
        events = [event for event, left in self.units.events.items() if left]
        if events:
            event, units = self.draw.choice(sorted(events)), self.amount()
            left = self.units.events[event]
            part = {} if self.draw.random() < 0.3 else {"value": -self.text(units)}
            self.post(TRACK, refund_of=event, **part)
            back = min(left, units) if part else left
            self.units.events[event] -= back
            self.units.give(back)

    def hold(self) -> None:
        self.made += 1
        units, name = self.amount(), f"{self.c}-{self.made}"
        if self.ask(units, lock={"enabled": True, "lock_id": name})["allowed"]:
            self.units.holds[name] = units

    def finalize(self) -> None:
        if not self.units.holds:
            return
        name = self.draw.choice(sorted(self.units.holds))
        held = self.units.holds.pop(name)
        final = self.draw.choice((held, 0, self.draw.randrange(held + 1), held + self.amount()))
        end = {"action": "release"} if final == 0 else {"action": "confirm", "override_value": self.text(final)}
        self.api.post(FINALIZE, {"lock_id": name, **end})
        if final > held:
            self.units.take(final - held)
        else:
            self.units.give(held - final)

    def set(self) -> None:
        book, units = self.units, self.amount()
        what, value, balance = self.draw.choice((
            ("remaining", units, units), ("add_to_balance", -units, book.balance - units),
            ("add_to_balance", units, book.balance + units), ("usage", units, book.granted - units),
        ))
        self.post("/v1/balances.update", feature_id="units", **{what: self.text(value)})
        book.balance = balance


@pytest.mark.parametrize(("make_api", "precision"), [("short" if p % 2 else "asgi", p) for p in range(10)], indirect=["make_api"])
def test_a_thousand_random_calls_drift_by_nothing(make_api: Any, precision: int) -> None:  # noqa: F811
    """Each answer, and at the end Redis, SQL's buckets and SQL's ledger, are what integers say."""
    seed = random.randrange(1 << 30)
    print(f"precision {precision}, seed {seed}")
    api = make_api()
    run = Sequence(api, precision, random.Random(seed))
    for _ in range(CALLS):
        run.step()
    expected = {"units": run.units.balance, "pool": run.pool.balance}
    assert {name: rows[0].balance for name, rows in books.state(api, run.c).features.items()} == expected
    assert {name: row.balance for name, row in books.snapshot(api, run.c).rows} == expected
    lines = books.ledger(api, run.c)
    assert {name: sum(line.delta for line in lines if line.feature_id == name) for name in expected} == expected
    held = books.state(api, run.c).features["units"][0].held
    assert held == sum(run.units.holds.values())
    books.lose_redis(api)
    for name, book in (("units", run.units), ("pool", run.pool)):
        assert str(api.check(run.c, name, 0)["balance"]) == str(api.balances(run.c)[name]["balance"])
        assert api.balances(run.c)[name]["balance"] == run.text(book.balance)


# At the end of the range --------------------------------------------------------------------------

MAX = QUANTITY_MAX
CREATE, UPDATE = "/v1/balances.create", "/v1/balances.update"
COARSE: dict[str, Any] = {"feature_id": "coarse"}
OVER = {"overage_behavior": "overflow"}


@pytest.fixture(scope="module")
def seller(module_api: Api) -> Api:  # noqa: F811
    api = module_api
    for name in ("coarse", "payg", "unit", "held", "window"):
        api.feature(name, precision=0)
    api.feature("fine", precision=9)
    api.feature("seats", "continuous_use")
    api.feature("pool", "credit_system", precision=0, credit_schema=[{"metered_feature_id": "unit", "credit_cost": 3}])
    paid = {"interval": "month", "price": 1, "usage_model": "pay_per_use"}
    api.plan(
        "base", {"feature_id": "coarse", "included_usage": 100}, {"feature_id": "payg", "included_usage": 10, **paid},
        {"feature_id": "pool", "included_usage": 10, **paid}, {"feature_id": "held", "included_usage": 10, **paid},
        {"feature_id": "window", "included_usage": "inf"}, {"feature_id": "seats", "included_usage": 10},
    )
    pack = {"interval": "month", "price": 1, "billing_units": 10, "usage_model": "prepaid"}
    api.plan("packs", {"feature_id": "unit", "included_usage": 0, **pack}, is_add_on=True)
    api.plan("half", {"feature_id": "unit", "included_usage": MAX // 2 + 1}, is_add_on=True)
    api.plan("shares", {"feature_id": "unit", "included_usage": MAX // 2 + 1, "entity_feature_id": "seats"}, group="shares")
    return api


@pytest.fixture(scope="module")
def c(seller: Api) -> str:
    """A customer near the end of every range."""
    api = seller
    c = api.customer("base")
    limit = {"feature_id": "window", "limit": MAX, "interval": "day"}
    api.call("POST", f"/v1/customers/{c}", {"billing_controls": {"usage_limits": [{**limit, "enabled": True}]}})
    api.track(c, "payg", MAX - 10)
    api.track(c, "window", MAX - 10)
    api.track(c, "held", MAX - 10)
    api.track(c, "pool", MAX - 10)
    api.check(c, "held", 5, lock={"enabled": True, "lock_id": "near"})
    api.track(c, "coarse", 40, idempotency_key="used")
    return c


RANGE: list[tuple[str, str, dict[str, Any], str]] = [
    *(
        (f"{what}, {mode}", TRACK, {"feature_id": feature, "value": value, "overage_behavior": mode}, "value")
        for what, feature, value in (("track", "coarse", MAX + 1), ("track of a debt", "payg", 25), ("credits", "unit", MAX // 3 + 1))
        for mode in ("cap", "reject", "overflow")
    ),
    ("credits of a debt", TRACK, {"feature_id": "unit", "value": 10}, "value"),
    ("precision 9", TRACK, {"feature_id": "fine", "value": 10**7}, "value"),
    ("the window's counter", TRACK, {"feature_id": "window", "value": 20, **OVER}, "value"),
    ("a refund", TRACK, {**COARSE, "value": -MAX - 1}, "value"),
    ("a refund beyond the grant", TRACK, {**COARSE, "value": -MAX, **OVER}, "value"),
    ("refund_of", TRACK, {"refund_of": "used", "value": -MAX - 1}, "value"),
    ("check", CHECK, {**COARSE, "required_balance": MAX + 1}, "required_balance"),
    ("check that sends", CHECK, {"feature_id": "payg", "required_balance": 25, "send_event": True}, "required_balance"),
    ("check by credits", CHECK, {"feature_id": "unit", "required_balance": 10, "send_event": True}, "required_balance"),
    ("hold", CHECK, {"feature_id": "payg", "required_balance": 25, "lock": {"enabled": True}}, "required_balance"),
    ("hold by track", TRACK, {"feature_id": "payg", "value": 25, "lock": {"enabled": True}}, "value"),
    ("finalize", FINALIZE, {"lock_id": "near", "action": "confirm", "override_value": MAX + 1}, "override_value"),
    ("finalize of a debt", FINALIZE, {"lock_id": "near", "action": "confirm", "override_value": 30}, "override_value"),
    ("create", CREATE, {**COARSE, "included_grant": MAX + 1}, "included_grant"),
    ("create beside another", CREATE, {**COARSE, "included_grant": MAX - 99}, "included_grant"),
    ("update remaining", UPDATE, {**COARSE, "remaining": MAX + 1}, "remaining"),
    ("update usage", UPDATE, {**COARSE, "usage": -MAX}, "usage"),
    ("update by an amount", UPDATE, {**COARSE, "add_to_balance": MAX - 50}, "add_to_balance"),
    ("update of a debt", UPDATE, {"feature_id": "payg", "add_to_balance": -25}, "add_to_balance"),
    ("update the grant", UPDATE, {**COARSE, "included_grant": MAX + 1}, "included_grant"),
    ("usage", "/v1/usage", {**COARSE, "value": -MAX}, "value"),
    ("balances of a customer", "/v1/customers/{c}/balances", {"balances": [{**COARSE, "balance": MAX + 1}]}, "balances[0].balance"),
    ("packs", "/v1/attach", {"product_id": "packs", "options": [{"feature_id": "unit", "quantity": MAX}]}, "options"),
    ("packs, in 2.x", "/v1/billing.attach", {"plan_id": "packs", "feature_quantities": [{"feature_id": "unit", "quantity": MAX}]}, "options"),
]


@pytest.mark.parametrize(("path", "body", "named"), [case[1:] for case in RANGE], ids=[case[0] for case in RANGE])
def test_what_would_pass_the_range_is_refused_whole(seller: Api, c: str, path: str, body: dict[str, Any], named: str) -> None:
    """A 400 that names the field and the precision, and nothing has changed in either store."""
    before = books.digest(seller, c)
    headers = V21 if path == "/v1/billing.attach" else {}
    answer = seller.raw("POST", path.format(c=c), {"customer_id": c, **body}, headers=headers)
    assert answer.status_code == 400, answer.text
    assert not books.changed(before, books.digest(seller, c))
    message = answer.json()["message"]
    assert message.startswith(named) and "precision" in message, message
    audit(seller)


@pytest.mark.parametrize("mode", ["cap", "reject", "overflow"])
def test_an_item_of_a_batch_out_of_range_changes_no_other(seller: Api, mode: str) -> None:
    c = seller.customer("base")
    seller.track(c, "payg", MAX - 10)
    asked = (("coarse", 1), ("payg", 25), ("coarse", MAX + 1), ("unit", MAX // 3 + 1), ("coarse", 2))
    items = [{"customer_id": c, "feature_id": feature, "value": value, "overage_behavior": mode} for feature, value in asked]
    results = seller.post("/v1/balances.batch_track", items, 202)["results"]
    assert [result["status"] for result in results] == [200, 400, 400, 400, 200]
    for result in results[1:4]:
        assert result["message"].startswith("value") and "precision" in result["message"]
    assert seller.balances(c)["coarse"]["balance"] == 97
    audit(seller)


def test_grants_that_add_up_past_the_range(seller: Api) -> None:
    """Neither a second plan, nor a second pack, nor a second entity's share takes a sum past the range."""
    c = seller.customer("base")
    seller.attach(c, "half")
    before = books.digest(seller, c)
    for body in ({"product_id": "half"}, {"product_id": "packs", "options": [{"feature_id": "unit", "quantity": MAX // 2 // 10 * 10 + 10}]}):
        answer = seller.raw("POST", "/v1/attach", {"customer_id": c, **body})
        assert answer.status_code == 400 and "precision" in answer.text, answer.text
    assert not books.changed(before, books.digest(seller, c))
    sharing = seller.customer("base", "shares")
    seller.entity(sharing, "e0")
    before = books.digest(seller, sharing)
    answer = seller.raw("POST", f"/v1/customers/{sharing}/entities", {"id": "e1", "feature_id": "seats"})
    assert answer.status_code == 400, answer.text
    assert not books.changed(before, books.digest(seller, sharing))
    audit(seller)


def test_a_catalog_whose_grants_do_not_fit(seller: Api) -> None:
    for feature, grant in (("coarse", MAX + 1), ("fine", 10**7)):
        item = {"feature_id": feature, "included_usage": grant}
        with seller.nothing_changes():
            answer = seller.raw("POST", "/v1/products", {"id": "large", "name": "L", "items": [item]})
        assert answer.status_code == 400 and "precision" in answer.text, answer.text
