"""The shorthand of the worked cases: buckets such as M(100), customers who hold them, what is shown.

Every letter is an item of a plan: `M(100)` free monthly, `H(5)` hourly, `L(200)` lifetime, `P(100, 500)`
prepaid with 100 included and 500 bought, `U(100)` pay-per-use, `U(100, extra=50)` with 50 purchasable
beyond the included, `E(50)` monthly for each seat, `UNLIMITED`, `FLAG`. Answers are those of API
version 1.2; what 2.x calls purchased and current is worked out from the breakdown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.http import Api

D = Decimal
Number = int | Decimal


@dataclass(frozen=True)
class Bucket:
    """An item of a plan, and the units of it to buy."""

    item: dict[str, Any]
    bought: Any = None

    def of(self, feature_id: str) -> Bucket:
        """The same of another feature."""
        return Bucket({**self.item, "feature_id": feature_id}, self.bought)

    def with_(self, **fields: Any) -> Bucket:
        return Bucket({**self.item, **fields}, self.bought)


def _grant(included: Any, interval: str | None, **fields: Any) -> Bucket:
    return Bucket({"feature_id": "msg", "included_usage": included, "interval": interval, **fields})


def M(included: Any, **fields: Any) -> Bucket:
    return _grant(included, "month", **fields)


def H(included: Any) -> Bucket:
    return _grant(included, "hour")


def L(included: Any) -> Bucket:
    return _grant(included, None)


def P(included: Any, bought: Any, interval: str | None = "month") -> Bucket:
    return Bucket(_grant(included, interval, price=1, usage_model="prepaid").item, bought)


def U(included: Any, extra: Any = None, price: Any = D("0.01"), **fields: Any) -> Bucket:
    limit = {} if extra is None else {"usage_limit": included + extra}
    return _grant(included, "month", price=price, usage_model="pay_per_use", **limit, **fields)


def E(included: Any, interval: str | None = "month") -> Bucket:
    return _grant(included, interval, entity_feature_id="seats")


UNLIMITED = _grant("inf", None)
FLAG = Bucket({"feature_id": "flag"})


@dataclass
class Shown:
    """One feature of a customer (or entity), as 1.2 shows it."""

    fields: dict[str, Any]

    @property
    def bal(self) -> Number:
        return self.fields["balance"]

    @property
    def u(self) -> Number:
        return self.fields["usage"]

    @property
    def g(self) -> Number:
        return self.fields["included_usage"]

    @property
    def r(self) -> Number:
        """What remains, over buckets: never below zero."""
        return sum(max(0, part["balance"]) for part in self.fields["breakdown"])

    @property
    def overage(self) -> Number:
        return sum(max(0, -part["balance"]) for part in self.fields["breakdown"])

    @property
    def parts(self) -> list[tuple[Number, Number]]:
        """(remaining, usage) of each bucket, in spending order."""
        return [(max(0, part["balance"]), part["usage"]) for part in self.fields["breakdown"]]

    def v2(self, prepaid: Number = 0) -> tuple[Number, Number, Number]:
        """Version 2.0's (current, purchased, usage), `prepaid` units having been bought."""
        return self.r, prepaid + self.overage, self.u


def spend_limit(limit: Any, feature: str = "msg", **fields: Any) -> dict[str, Any]:
    """An entry of `spend_limits`."""
    return {"feature_id": feature, "overage_limit": limit, **fields}


def usage_limit(limit: Any, feature: str = "msg", interval: str = "day", **fields: Any) -> dict[str, Any]:
    """An entry of `usage_limits`: a day of the billing cycle unless said otherwise."""
    return {"feature_id": feature, "limit": limit, "interval": interval, **fields}


def overage(enabled: bool, feature: str = "msg") -> dict[str, Any]:
    """An entry of `overage_allowed`."""
    return {"feature_id": feature, "enabled": enabled}


def decision(answer: dict[str, Any]) -> tuple[bool, str | None, str | None, Number]:
    """What a check decided, at any version: allowed, reason, feature_id and required_balance."""
    of = answer["feature_id"] if "feature_id" in answer else (answer["balance"] or answer.get("flag") or {}).get("feature_id")
    return answer["allowed"], answer.get("reason"), of, answer["required_balance"]


@dataclass
class World:
    """One app with a catalog that grows as cases name things."""

    api: Api
    known: set[str] = field(default_factory=set)
    plans: int = 0
    version: str = ""
    """The API version that customers call at; without one, as most callers do, 1.2."""

    @property
    def headers(self) -> dict[str, str]:
        return {"x-api-version": self.version} if self.version else {}

    @property
    def newer(self) -> bool:
        """Whether that is of the second generation."""
        return self.version >= "2"

    def feature(self, feature_id: str, kind: str = "single_use", **fields: Any) -> None:
        if feature_id not in self.known:
            self.known.add(feature_id)
            self.api.feature(feature_id, kind, **fields)

    def credits(self) -> None:
        """The case file's credit systems and the event that feeds two actions."""
        for n in (1, 2, 3):
            self.feature(f"action{n}", event_names=["action-event"] if n in (1, 3) else [])
        for system, schema in (
            ("credits", {"action1": D("0.2"), "action2": D("0.6")}),
            ("credits2", {"action3": D("1.4")}), ("credits3", {"action1": 2}),
        ):
            self.feature(system, "credit_system", credit_schema=[
                {"metered_feature_id": member, "credit_cost": cost} for member, cost in schema.items()
            ])

    def plan(self, *buckets: Bucket, controls: Any = None, **fields: Any) -> tuple[str, dict[str, Any]]:
        """A plan of these buckets in a group of its own, with billing controls if any are given, and the
        units to buy of it."""
        for bucket in buckets:
            name = bucket.item["feature_id"]
            self.feature(name, {"flag": "boolean", "seats": "continuous_use"}.get(name, "single_use"))
            if bucket.item.get("entity_feature_id"):
                self.feature("seats", "continuous_use")
        self.plans += 1
        plan_id = f"plan{self.plans}"
        self.api.plan(plan_id, *(bucket.item for bucket in buckets), **{"group": plan_id, **fields})
        if controls is not None:
            body = {"plan_id": plan_id, "billing_controls": controls}
            self.api.post("/v1/plans.update", body, headers={"x-api-version": "2.3"})
        return plan_id, {bucket.item["feature_id"]: bucket.bought for bucket in buckets if bucket.bought is not None}

    def add_on(self, *buckets: Bucket) -> tuple[str, dict[str, Any]]:
        return self.plan(*buckets, is_add_on=True)

    def customer(self, *plans: tuple[str, dict[str, Any]]) -> Customer:
        """A new customer holding these plans."""
        made = Customer(self, self.api.customer())
        for plan in plans:
            made.attach(plan)
        return made

    def holding(self, *buckets: Bucket) -> Customer:
        """A new customer holding one main plan of these buckets."""
        return self.customer(self.plan(*buckets))


@dataclass
class Customer:
    """A customer and what it calls."""

    world: World
    id: str

    @property
    def api(self) -> Api:
        return self.world.api

    def attach(self, plan: tuple[str, dict[str, Any]], **fields: Any) -> dict[str, Any]:
        return self.api.attach(self.id, plan[0], plan[1], **fields)

    def entities(self, *entity_ids: str) -> None:
        for entity_id in entity_ids:
            self.api.entity(self.id, entity_id)

    def post(self, path: str, body: dict[str, Any], status: int = 200) -> Any:
        """A call about this customer, at the world's version."""
        return self.api.post(path, {"customer_id": self.id, **body}, status, headers=self.world.headers)

    def controls(self, entity: str = "", **lists: list[dict[str, Any]]) -> None:
        """Sets billing controls of the customer, or of one of its entities: each list given replaces
        the one there was."""
        if entity:
            self.post("/v1/entities.update", {"entity_id": entity, "billing_controls": lists})
        elif self.world.newer:
            self.post("/v1/customers.update", {"billing_controls": lists})
        else:
            self.api.post(f"/v1/customers/{self.id}", {"billing_controls": lists})

    def counter(self, feature: str = "msg", entity: str = "") -> Number:
        """The usage of the feature's one usage limit in its present window, as 2.x shows it."""
        path = f"/v1/customers/{self.id}" + (f"/entities/{entity}" if entity else "")
        limits = self.api.get(path, headers={"x-api-version": "2.3"})["billing_controls"]["usage_limits"]
        (used,) = [limit["usage"] for limit in limits if limit["feature_id"] == feature]
        return used

    def track(self, value: Any = None, feature: str = "msg", status: int = 200, **fields: Any) -> Any:
        given = {} if value is None else {"value": value}
        return self.post("/v1/track", {"feature_id": feature, **given, **fields}, status)

    def reject(self, value: Any, feature: str = "msg", code: str = "insufficient_balance", **fields: Any) -> None:
        """A track in reject mode that must be refused, for want of balance unless said otherwise,
        changing nothing."""
        body = {"customer_id": self.id, "feature_id": feature, "value": value, "overage_behavior": "reject", **fields}
        self.api.refused("/v1/track", body, 400, code, headers=self.world.headers)

    def event(self, name: str, value: Any, **fields: Any) -> Any:
        return self.post("/v1/track", {"event_name": name, "value": value, **fields})

    def check(self, required: Any = None, feature: str = "msg", status: int = 200, **fields: Any) -> Any:
        given = {} if required is None else {"required_balance": required}
        return self.post("/v1/check", {"feature_id": feature, **given, **fields}, status)

    def allowed(self, required: Any = None, feature: str = "msg", **fields: Any) -> bool:
        """check's decision; with send_event it is carried out too. A check without it must agree."""
        answer = self.check(required, feature, **fields)
        assert ("reason" in answer) is not answer["allowed"], answer
        return bool(answer["allowed"])

    def denied(self, required: Any = None, feature: str = "msg", **fields: Any) -> str:
        """Why a check says no, and the same call with send_event, which must change nothing."""
        seen = self.check(required, feature, **fields)
        with self.api.nothing_changes():
            sent = self.check(required, feature, send_event=True, **fields)
        assert seen == sent and not seen["allowed"], (seen, sent)
        return str(seen["reason"])

    def shown(self, feature: str = "msg", entity: str = "") -> Shown:
        """The feature as the customer (or one of its entities) shows it; a check shows the same, and
        so does the world's version."""
        path = f"/v1/customers/{self.id}" + (f"/entities/{entity}" if entity else "")
        fields = self.api.get(path)["features"][feature]
        seen = self.api.check(self.id, feature, 0, **({"entity_id": entity} if entity else {}))
        if seen["feature_id"] == feature:
            for name in ("balance", "usage", "included_usage", "interval", "next_reset_at", "breakdown"):
                assert seen.get(name) == fields.get(name), f"{name}: check says {seen}, the customer {fields}"
        if self.world.newer and not fields["unlimited"]:
            newer = self.api.get(path, headers=self.world.headers)["balances"][feature]
            assert newer["usage"] == fields["usage"], f"2.x says {newer}, 1.2 {fields}"
        assert fields["included_usage"] - fields["usage"] == fields["balance"]
        return Shown(fields)

    def ru(self, feature: str = "msg", entity: str = "") -> tuple[Number, Number]:
        """(remaining, usage)."""
        shown = self.shown(feature, entity)
        return shown.r, shown.u

    def parts(self, feature: str = "msg", entity: str = "") -> list[tuple[Number, Number]]:
        return self.shown(feature, entity).parts

    def bal(self, feature: str = "msg", entity: str = "") -> Number:
        return self.shown(feature, entity).bal

    def period_end(self, feature: str = "msg") -> int:
        """When the feature's first recurring bucket resets."""
        dates = [part["next_reset_at"] for part in self.shown(feature).fields["breakdown"] if part["next_reset_at"]]
        return int(min(dates))
