"""One event that feeds several features: one script call, one id, and in reject mode all or none."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Iterator

import pytest

from sidecar.engine import keys
from tests.http import Api, audit

D = Decimal
TRACK = "/v1/track"


@pytest.fixture(scope="module")
def seller(module_api: Api) -> Api:
    api = module_api
    api.feature("fine", event_names=["all", "two"])
    api.feature("scarce", event_names=["all", "two"])
    api.feature("flag", "boolean", event_names=["all"])
    api.feature("nothing", event_names=["all"])
    api.feature("coarse", precision=0, event_names=["mixed"])
    api.feature("exact", precision=9, event_names=["mixed"])
    api.feature("seats", "continuous_use")
    api.plan(
        "base", {"feature_id": "fine", "included_usage": 100, "interval": "month"},
        {"feature_id": "scarce", "included_usage": 10, "interval": "month"}, {"feature_id": "flag"},
        {"feature_id": "coarse", "included_usage": 5}, {"feature_id": "exact", "included_usage": 5},
        {"feature_id": "fine", "included_usage": 20, "interval": "month", "entity_feature_id": "seats"}, is_default=True,
    )
    return api


@pytest.fixture
def api(seller: Api) -> Iterator[Api]:
    yield seller
    audit(seller)


def left(api: Api, c: str, *features: str) -> list[Any]:
    balances = api.balances(c)
    return [balances[name]["balance"] for name in features]


def event(c: str, name: str, value: Any, **fields: Any) -> dict[str, Any]:
    return {"customer_id": c, "event_name": name, "value": value, **fields}


def test_an_event_feeds_every_feature_that_lists_it(api: Api) -> None:
    c = api.customer()
    answer = api.post(TRACK, event(c, "all", 4, properties={"from": "test"}))
    assert answer["event_name"] == "all" and "feature_id" not in answer
    assert left(api, c, "fine", "scarce") == [96, 6]
    recorded = api.events(c)
    assert [(e["feature_id"], e["applied"]) for e in recorded] == [
        ("fine", 4_000_000), ("scarce", 4_000_000), ("flag", 0), ("nothing", 0),
    ]
    assert {(e["value"], e["event_name"], e["properties"]["from"]) for e in recorded} == {("4", "all", "test")}
    assert {keys.event_id(e["p"], e["gen"], e["seq"]) for e in recorded} == {answer["id"]}


def test_rejecting_takes_all_features_or_none(api: Api) -> None:
    c = api.customer()
    api.refused(TRACK, event(c, "two", 11, overage_behavior="reject"), 400, "insufficient_balance")
    assert left(api, c, "fine", "scarce") == [100, 10] and api.events(c) == []
    api.post(TRACK, event(c, "two", 10, overage_behavior="reject"))
    assert left(api, c, "fine", "scarce") == [90, 0]
    message = api.refused(TRACK, event(c, "two", 1, overage_behavior="reject"), 400, "insufficient_balance")
    assert "'scarce'" in message


def test_capping_takes_from_each_what_it_has(api: Api) -> None:
    c = api.customer()
    api.post(TRACK, event(c, "two", 30))
    assert left(api, c, "fine", "scarce") == [70, 0]
    assert [e["applied"] for e in api.events(c)] == [30_000_000, 10_000_000]


def test_a_feature_that_is_not_held_does_not_hold_the_event_up(api: Api) -> None:
    c = api.customer()
    api.post(TRACK, event(c, "all", 10, overage_behavior="reject"))
    assert left(api, c, "fine", "scarce") == [90, 0]


def test_a_value_that_one_feature_cannot_hold_refuses_the_event(api: Api) -> None:
    c = api.customer()
    message = api.refused(TRACK, event(c, "mixed", D("0.4")), 400, "invalid_inputs")
    assert message.startswith("value") and "precision 1" in message
    api.refused(TRACK, event(c, "mixed", 10**7), 400, "invalid_inputs")
    api.post(TRACK, event(c, "mixed", D("1.6")))
    assert left(api, c, "coarse", "exact") == [3, D("3.4")], "each at its own precision"


def test_a_range_passed_by_the_second_feature_leaves_the_first(api: Api) -> None:
    c = api.customer()
    api.track(c, "exact", 9_000_000, overage_behavior="overflow")
    body = event(c, "mixed", 9_000_000, overage_behavior="overflow")
    api.refused(TRACK, body, 400, "invalid_inputs")
    assert left(api, c, "coarse") == [5]


def test_a_refused_event_with_a_reset_due_does_only_the_reset(api: Api) -> None:
    """The period turns inside a call that is refused at its second feature, for an entity of which
    nothing is stored yet: what was due is done, nothing else, and the entity goes on working."""
    c = api.customer()
    api.entity(c, "e1")
    api.track(c, "fine", 60)
    api.track(c, "scarce", 5)
    api.advance(32 * 86_400_000)
    answer = api.post(TRACK, event(c, "two", 15, overage_behavior="reject", entity_id="e1"), 400)
    assert answer["code"] == "insufficient_balance"
    assert left(api, c, "fine", "scarce") == [120, 10]
    api.track(c, "fine", 5, entity_id="e1")
    assert api.check(c, "fine", entity_id="e1")["balance"] == 115
    assert [e["applied"] for e in api.events(c)] == [60_000_000, 5_000_000, 5_000_000]


def test_an_events_credits_are_each_systems_own(api: Api) -> None:
    api.feature("step", event_names=["walk"])
    api.feature("jump", event_names=["walk"])
    api.feature("energy", "credit_system", credit_schema=[
        {"metered_feature_id": "step", "credit_cost": 1}, {"metered_feature_id": "jump", "credit_cost": 5},
    ])
    api.plan("hiker", {"feature_id": "energy", "included_usage": 100}, group="energy")
    c = api.customer("hiker")
    api.post(TRACK, event(c, "walk", 10))
    assert left(api, c, "energy") == [40], "10 × 1 and 10 × 5"
    api.refused(TRACK, event(c, "walk", 7, overage_behavior="reject"), 400, "insufficient_balance")
    api.post(TRACK, event(c, "walk", 7))
    assert left(api, c, "energy") == [0]
    assert [e["applied"] for e in api.events(c)][-2:] == [7_000_000, 6_600_000], "7 × 1, then 33 of 35"
