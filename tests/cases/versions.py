"""A feature of a customer as every API version shows it, which must all agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.cases.world import Customer

V20, V21, NEWEST = ({"x-api-version": version} for version in ("2.0", "2.1", "2.3.0"))


@dataclass(frozen=True)
class Seen:
    """What remains, what was used, what was granted, and what is left in each rollover, soonest-ending
    first."""

    r: Any
    u: Any
    g: Any
    rolls: list[Any]
    made: list[Any]
    """What each rollover was made of."""


def shown_at(c: Customer, headers: dict[str, str] | None, feature: str = "msg", entity: str = "") -> dict[str, Any]:
    """The balance of one version (None: 1.2), the same in the customer (or entity) and in a check."""
    path = f"/v1/customers/{c.id}" + (f"/entities/{entity}" if entity else "")
    body = {"customer_id": c.id, "feature_id": feature, "required_balance": 0, **({"entity_id": entity} if entity else {})}
    shown: dict[str, Any]
    if headers is None:
        shown, checked = c.api.get(path)["features"][feature], c.api.post("/v1/check", body)
        both = [name for name in shown if name in checked]
        assert [checked[name] for name in both] == [shown[name] for name in both]
        return shown
    shown = c.api.get(path, headers=headers)["balances"][feature]
    assert c.api.post("/v1/check", body, headers=headers)["balance"] == shown
    return shown


def seen(c: Customer, feature: str = "msg", entity: str = "") -> Seen:
    """The feature at 1.2, 2.0, 2.1 and the newest version."""
    old, middle, new, newest = (shown_at(c, headers, feature, entity) for headers in (None, V20, V21, NEWEST))
    assert newest == new
    rolls = new.get("rollovers", [])
    older = [{name: roll[name] for name in ("balance", "expires_at")} for roll in rolls]
    assert old.get("rollovers", []) == middle.get("rollovers", []) == older
    assert old["included_usage"] - old["usage"] == old["balance"]
    assert middle["granted_balance"] + middle["purchased_balance"] == middle["current_balance"] + middle["usage"]
    assert old["usage"] == middle["usage"] == new["usage"]
    assert old["included_usage"] == new["granted"]
    assert middle["current_balance"] == new["remaining"] >= old["balance"]
    left, made = [roll["balance"] for roll in rolls], [roll["granted"] for roll in rolls]
    return Seen(new["remaining"], new["usage"], new["granted"], left, made)
