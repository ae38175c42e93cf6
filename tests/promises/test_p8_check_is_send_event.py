"""Promise P8: check answers exactly what the same call with send_event does at that instant.

Over HTTP, for random customers: grants of every kind, with and without entities, credit systems,
caps at every level, rollovers, open holds, debts, loose grants. Check and then the same call with
send_event agree on allowed, reason, feature_id and required_balance (or on why they are refused), in
both generations of the wire; what is allowed is taken off whole, and what is denied changes nothing.

SIDECAR_LONG=1 looks at many more customers. A failure prints the seed, which SIDECAR_SEED repeats, and
what was done to the customer.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Iterator, Sequence

import pytest

from sidecar.store.events import event_id
from tests.cases.world import decision
from tests.http import DAY_MS, HOUR_MS, Api, audit, loop_runner, module_api, module_apps  # noqa: F401

D = Decimal
LONG = os.environ.get("SIDECAR_LONG") == "1"
SEED = int(os.environ.get("SIDECAR_SEED") or random.SystemRandom().randrange(2**32))
CUSTOMERS = 1500 if LONG else 30
PLANS, BUILD_STEPS, PROBES = 30, 7, 8
VERSIONS = ("1.2", "2.0", "2.1", "2.3")
COUNTED = ("alpha", "alpha", "alpha", "beta", "gold", "mint", "seats")
PRECISION = {"alpha": 6, "beta": 0, "gold": 6, "mint": 2, "seats": 6, "flag": 6, "idle": 6}
COSTS: dict[str, dict[str, Any]] = {"gold": {"alpha": D("0.3"), "beta": 3}, "mint": {"alpha": D("1.4")}}
ENTITIES = ("e1", "e2")
LARGEST = 2**53 - 1


@dataclass
class Subject:
    """A random customer, and what was done to it."""

    api: Api
    rng: random.Random
    id: str = ""
    entities: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    """Features worth asking for, credit systems and their members among them."""
    locks: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def call(self, path: str, version: str = "2.3", **body: Any) -> tuple[int, Any]:
        """Makes a call about the customer; its status and answer. It may be refused, but never fail."""
        body = {"customer_id": self.id, **body}
        answer = self.api.raw("POST", path, body, headers={"x-api-version": version})
        assert answer.status_code < 500, f"{path} {body}: {answer.text}"
        told = answer.json(parse_float=D)
        self.done.append(f"{version} {path} {body} -> {answer.status_code} {told.get('code') or ''}")
        return answer.status_code, told

    def whose(self) -> dict[str, str]:
        """Nobody, or one of the entities."""
        entity = self.rng.choice(["", *self.entities])
        return {"entity_id": entity} if entity else {}

    def feature(self) -> str:
        """Mostly one that can be used, and of these one more than the others."""
        held = self.held if self.held and self.rng.random() < 0.9 else COUNTED
        return held[0] if self.rng.random() < 0.6 else self.rng.choice(held)

    def look(self) -> None:
        """Notes what the customer has now."""
        features = self.api.get(f"/v1/customers/{self.id}")["features"]
        self.held = [name for name in features if name != "flag"]
        self.rng.shuffle(self.held)
        self.held += [member for system in features for member in COSTS.get(system, ()) if member not in features]

    def amount(self, feature: str) -> int | Decimal:
        """A small quantity of the feature, mostly above zero."""
        rng = self.rng
        whole = rng.choice([1, 1, 2, 3, 5, 8, 13, 30, 100])
        if rng.random() < 0.25:
            places = min(PRECISION[feature], rng.choice([1, 2, 6]))
            return D(whole) + D(rng.randrange(10**places)).scaleb(-places)
        return whole


def controls(rng: random.Random, held: Sequence[str] = ()) -> dict[str, Any]:
    """Random billing controls, at most one entry of a kind for a feature."""
    found: dict[str, Any] = {}
    for feature in dict.fromkeys((*held[:1], rng.choice([*held, *COUNTED]))):
        kind, enabled = rng.choice(["spend", "spend", "window", "overage", "overage"]), rng.random() < 0.75
        if kind == "spend" and rng.random() < 0.3:
            entry = {"overage_limit": rng.choice([50, 120]), "limit_type": "usage_percentage"}
            found.setdefault("spend_limits", []).append({"feature_id": feature, "enabled": enabled, **entry})
        elif kind == "spend":
            found.setdefault("spend_limits", []).append(
                {"feature_id": feature, "enabled": enabled, "overage_limit": rng.choice([0, 1, 4, 20])}
            )
        elif kind == "window":
            found.setdefault("usage_limits", []).append({
                "feature_id": feature, "enabled": enabled, "limit": rng.choice([0, 2, 6, 25]),
                "interval": rng.choice(["day", "week", "month", "year"]), "anchor": rng.choice(["billing_cycle", "utc"]),
            })
        else:
            found.setdefault("overage_allowed", []).append({"feature_id": feature, "enabled": enabled})
    return found


def item(rng: random.Random) -> dict[str, Any]:
    """A random item of a plan."""
    feature = rng.choice([*COUNTED, "alpha", "gold", "flag"])
    if feature == "flag":
        return {"feature_id": "flag"}
    made: dict[str, Any] = {"feature_id": feature, "included_usage": rng.choice([0, 0, 1, 3, 10, 25])}
    made["interval"] = None if feature == "seats" else rng.choice([None, "month", "month", "day", "hour"])
    if rng.random() < 0.08:
        return {**made, "included_usage": "inf"}
    if rng.random() < 0.2 and feature != "seats":
        made["entity_feature_id"] = "seats"
    if made["interval"] == "month" and rng.random() < 0.3:
        made["rollover"] = {"duration": "month", "length": 2}
    if made["interval"] and rng.random() < 0.35:
        made.pop("rollover", None)
        made.update(price=D("0.01"), usage_model="pay_per_use")
        if rng.random() < 0.5:
            made["usage_limit"] = made["included_usage"] + rng.choice([0, 2, 8])
    return made


@pytest.fixture(scope="module")
def plans(module_api: Api) -> list[str]:  # noqa: F811
    """Plans that random customers may hold, drawn by the seed."""
    api, rng = module_api, random.Random(f"{SEED} plans")
    for name in ("alpha", "beta", "idle"):
        api.feature(name, precision=PRECISION[name])
    api.feature("seats", "continuous_use")
    api.feature("flag", "boolean")
    for name, costs in COSTS.items():
        schema = [{"metered_feature_id": member, "credit_cost": cost} for member, cost in costs.items()]
        api.feature(name, "credit_system", precision=PRECISION[name], credit_schema=schema)
    for number in range(PLANS):
        name = f"p{number}"
        items = {one["feature_id"]: one for one in (item(rng) for _ in range(rng.randint(1, 4)))}
        api.plan(name, *items.values(), group=name, is_add_on=rng.random() < 0.25)
        if rng.random() < 0.35:
            body = {"plan_id": name, "billing_controls": controls(rng)}
            api.post("/v1/plans.update", body, headers={"x-api-version": "2.3"})
    return [f"p{number}" for number in range(PLANS)]


@pytest.fixture
def subject(module_api: Api, plans: list[str], number: int) -> Subject:  # noqa: F811
    """A random customer."""
    made = Subject(module_api, random.Random(f"{SEED} {number}"))
    rng = made.rng
    made.id = module_api.customer()
    if rng.random() < 0.6:
        for entity_id in ENTITIES[: rng.randint(1, 2)]:
            status, _ = made.call("/v1/entities.create", entity_id=entity_id, feature_id="seats")
            if status == 200:
                made.entities.append(entity_id)
    for plan_id in rng.sample(plans, rng.randint(1, 3)):
        whose = made.whose() if rng.random() < 0.3 else {}
        status, answer = made.call("/v1/attach", "1.2", product_id=plan_id, **whose)
        if status == 200 and answer["checkout_url"]:
            module_api.pay(answer["checkout_url"])
    made.look()
    if rng.random() < 0.5:
        made.call("/v1/customers.update", billing_controls=controls(rng, made.held))
    for _ in range(rng.randint(0, BUILD_STEPS)):
        act(made)
    return made


def act(of: Subject) -> None:
    """One random thing that happens to a customer."""
    rng, feature = of.rng, of.feature()
    kind = rng.choices(
        ["track", "hold", "finalize", "controls", "entity controls", "grant", "set", "time"], [8, 6, 1, 3, 3, 2, 1, 1]
    )[0]
    if kind == "track":
        mode, value = rng.choice(["cap", "cap", "overflow", "reject"]), of.amount(feature)
        of.call("/v1/track", feature_id=feature, value=-value if rng.random() < 0.15 else value, overage_behavior=mode, **of.whose())
    elif kind == "hold":
        status, answer = of.call("/v1/check", feature_id=feature, required_balance=of.amount(feature), lock={"enabled": True}, **of.whose())
        if status == 200 and answer["allowed"]:
            of.locks.append(answer["lock_id"])
    elif kind == "finalize" and of.locks:
        body = {"lock_id": of.locks.pop(), "action": "confirm", "override_value": rng.randint(0, 9)}
        of.api.raw("POST", "/v1/balances.finalize", body)
        of.done.append(f"finalize {body}")
    elif kind == "controls":
        of.call("/v1/customers.update", billing_controls=controls(rng, of.held))
    elif kind == "entity controls" and of.entities:
        of.call("/v1/entities.update", entity_id=rng.choice(of.entities), billing_controls=controls(rng, of.held))
    elif kind == "grant":
        dates = {"expires_at": of.api.advance(0) + rng.choice([5, 100]) * HOUR_MS + HOUR_MS // 2} if rng.random() < 0.5 else {}
        of.call("/v1/balances.create", feature_id=feature, included_grant=rng.choice([0, 2, 7]), **dates, **of.whose())
    elif kind == "set":
        of.call("/v1/balances.update", feature_id=feature, remaining=rng.choice([-3, 0, 1, 9]))
    elif kind == "time":
        of.done.append(f"time {of.api.advance(rng.choice([HOUR_MS, 7 * HOUR_MS, DAY_MS, 32 * DAY_MS]))}")


def probe_amounts(of: Subject, feature: str, whose: dict[str, str]) -> list[Any]:
    """Quantities worth asking for: any, what would just fit and a last place more, nothing, less than
    nothing, and the largest there is."""
    query = f"feature_id={feature}" + "".join(f"&entity_id={entity}" for entity in whose.values())
    accepts = of.api.get(f"/v1/customers/{of.id}/explain?{query}")["accepts"]
    step = D(1).scaleb(-PRECISION[feature])
    edge = [] if accepts is None else [accepts, accepts + step, accepts + step]
    return [of.amount(feature), of.amount(feature), 0, -of.amount(feature), D(LARGEST) * step, *edge, *edge]


def said(answer: tuple[int, Any]) -> tuple[Any, ...]:
    """What an answer decides, or why there is none."""
    status, body = answer
    return decision(body) if status == 200 else (status, body["code"], body["message"])


def agree(of: Subject) -> dict[str, Any]:
    """Asks and then does one random thing. Returns what was spent: the event's id, feature, amount."""
    rng = of.rng
    feature = of.feature() if rng.random() < 0.9 else rng.choice(["flag", "idle"])
    whose, version = of.whose(), rng.choice(VERSIONS)
    amount = rng.choice(probe_amounts(of, feature, whose)) if feature != "flag" else rng.choice([0, 1, 5])
    asked = {"feature_id": feature, "required_balance": amount, **whose}
    seen = of.call("/v1/check", version, **asked)
    other = said(of.call("/v1/check", rng.choice(VERSIONS), **asked))
    assert other == said(seen) or None in (other[2], said(seen)[2]) and other[:2] == said(seen)[:2], "in every version alike"
    before = of.api.stamp()
    sent = of.call("/v1/check", version, **asked, send_event=True)
    assert said(sent) == said(seen), (seen, sent)
    made = sent[1].get("id" if version == "1.2" else "event_id")
    allowed = sent[0] == 200 and sent[1]["allowed"]
    assert (made is not None) is allowed
    if not allowed:
        assert of.api.stamp() == before, "a denied call changes nothing"
    return {made: (feature, amount)} if made and feature != "flag" and amount > 0 else {}


@pytest.fixture(scope="module", autouse=True)
def _audited(module_api: Api) -> Iterator[None]:  # noqa: F811
    yield
    audit(module_api)


@pytest.mark.parametrize("number", range(CUSTOMERS))
def test_check_says_what_send_event_does(subject: Subject, number: int) -> None:
    spent: dict[str, tuple[str, Any]] = {}
    try:
        for _ in range(PROBES):
            spent.update(agree(subject))
            if subject.rng.random() < 0.3:
                act(subject)
        for event in subject.api.events(subject.id):
            name = event_id(event["p"], event["gen"], event["seq"])
            if name in spent:
                feature, amount = spent.pop(name)
                units = D(amount).scaleb(PRECISION[feature])
                assert event["requested"] == event["applied"] == units, "what is allowed is taken off whole"
        assert not spent, "every event is recorded"
    except AssertionError as failure:
        done = "\n".join(subject.done)
        raise AssertionError(f"SIDECAR_SEED={SEED}, customer {number} {subject.id}: {failure}\n{done}") from failure


REASONS: dict[str, tuple[dict[str, Any], list[tuple[str, dict[str, Any]]], int]] = {
    # a grant, what happens then, and what is asked for
    "not_held": ({"feature_id": "beta"}, [], 1),
    "usage_limit": ({}, [("customers.update", {"billing_controls": {
        "usage_limits": [{"feature_id": "alpha", "limit": 3, "interval": "day"}],
        "spend_limits": [{"feature_id": "alpha", "overage_limit": 0}],
        "overage_allowed": [{"feature_id": "alpha", "enabled": True}],
    }})], 11),
    "spend_limit": ({}, [("customers.update", {"billing_controls": {
        "spend_limits": [{"feature_id": "alpha", "overage_limit": 5}],
        "overage_allowed": [{"feature_id": "alpha", "enabled": True}],
    }}), ("check", {"feature_id": "alpha", "required_balance": 10, "lock": {"enabled": True}})], 6),
    "held_by_others": ({}, [("check", {"feature_id": "alpha", "required_balance": 8, "lock": {"enabled": True}})], 10),
    "insufficient_balance": ({}, [("check", {"feature_id": "alpha", "required_balance": 8, "lock": {"enabled": True}})], 11),
}
"""By reason; of several that apply, the one to be told."""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("reason", REASONS)
def test_each_reason(module_api: Api, plans: list[str], reason: str, version: str) -> None:  # noqa: F811
    grant, steps, amount = REASONS[reason]
    of = Subject(module_api, random.Random(0), module_api.customer())
    of.call("/v1/balances.create", **{"feature_id": "alpha", "included_grant": 10, **grant})
    for route, body in steps:
        assert of.call(f"/v1/{route}", **body)[0] == 200
    asked = {"feature_id": "alpha", "required_balance": amount}
    seen, sent = of.call("/v1/check", version, **asked), of.call("/v1/check", version, **asked, send_event=True)
    assert said(seen) == said(sent) == (False, reason, said(seen)[2], amount)
