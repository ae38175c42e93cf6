"""Entities over HTTP: seats taken and given back, own buckets, shares of per-entity grants."""

from __future__ import annotations

import pytest

from tests.flows.client import Api


@pytest.fixture
def team(api: Api) -> str:
    """A customer on the team plan: 3 seats, 50 words a month per seat and 100 for all."""
    customer_id = api.customer()
    assert api.attach(customer_id, "team")["code"] == "free_product_attached"
    return customer_id


def path(customer_id: str, entity_id: str = "") -> str:
    return f"/v1/customers/{customer_id}/entities" + (f"/{entity_id}" if entity_id else "")


def test_an_entity_takes_a_seat_and_opens_its_share(api: Api, team: str) -> None:
    """Case 119."""
    shown = api.post(path(team), {"id": "e1", "name": "E1", "feature_id": "seats"})
    assert (shown["id"], shown["name"], shown["customer_id"], shown["feature_id"]) == ("e1", "E1", team, "seats")
    assert isinstance(shown["created_at"], int) and shown["env"] == "sandbox"
    assert shown["features"]["words"]["balance"] == 150
    api.post(path(team), {"id": "e2", "feature_id": "seats"})
    customer = api.get(f"/v1/customers/{team}")["features"]
    assert (customer["seats"]["balance"], customer["seats"]["usage"]) == (1, 2)
    assert (customer["words"]["balance"], customer["words"]["included_usage"]) == (200, 200)
    assert customer["sso"]["type"] == "static"

    assert api.post("/v1/track", {"customer_id": team, "feature_id": "words", "value": 30, "entity_id": "e1"})["entity_id"] == "e1"
    words = api.get(path(team, "e1"))["features"]["words"]
    assert (words["balance"], [(p["balance"], p["usage"]) for p in words["breakdown"]]) == (120, [(20, 30), (100, 0)])
    assert api.get(path(team, "e2"))["features"]["words"]["balance"] == 150
    assert api.feature(team, "words")["balance"] == 170
    assert api.check(team, "words", entity_id="e1")["balance"] == 120


def test_a_plan_attached_to_an_entity_is_its_own(api: Api, team: str) -> None:
    """Case 125."""
    for entity_id in ("e1", "e2"):
        api.post(path(team), {"id": entity_id, "feature_id": "seats"})
    assert api.attach(team, "seat_words", entity_id="e1")["success"] is True
    first, second = (api.get(path(team, entity_id)) for entity_id in ("e1", "e2"))
    assert (first["features"]["words"]["balance"], second["features"]["words"]["balance"]) == (170, 150)
    held = {p["id"]: p["entity_id"] for p in first["products"]}
    assert (held["seat_words"], held["team"]) == ("e1", None)
    assert "seat_words" not in {p["id"] for p in second["products"]}
    assert api.feature(team, "words")["balance"] == 220
    api.refused(
        "POST", "/v1/track",
        {"customer_id": team, "feature_id": "words", "value": 171, "entity_id": "e1", "overage_behavior": "reject"},
        400, "insufficient_balance",
    )
    api.call("DELETE", path(team, "e1"))
    after = api.get(f"/v1/customers/{team}")
    assert after["features"]["words"]["balance"] == 150 and "seat_words" not in {p["id"] for p in after["products"]}


def test_checkout_for_an_entity_applies_to_it(api: Api, team: str) -> None:
    api.post(path(team), {"id": "e1", "feature_id": "seats"})
    options = [{"feature_id": "messages", "quantity": 100}]
    checkout = api.checkout(team, "top_up", options=options, entity_id="e1")
    api.pay(checkout["url"])
    assert api.get(path(team, "e1"))["features"]["messages"]["balance"] == 110
    assert api.check(team, "messages", required_balance=11)["allowed"] is False, "the customer itself cannot spend them"
    body = {"customer_id": team, "product_id": "top_up", "options": options, "entity_id": "nobody"}
    for route in ("/v1/attach", "/v1/checkout"):
        api.refused("POST", route, body, 404, "entity_not_found")


def test_no_room_refuses_and_changes_nothing(api: Api) -> None:
    customer_id = api.customer()
    api.pay(api.attach(customer_id, "seat_cap")["url"])
    api.post(path(customer_id), {"id": "e1", "feature_id": "seats"})
    body = [{"id": "e2", "feature_id": "seats"}, {"id": "e3", "feature_id": "seats"}]
    api.refused("POST", path(customer_id), body, 400, "usage_limit_exceeded")
    assert [e["id"] for e in api.get(path(customer_id))["list"]] == ["e1"]
    assert api.feature(customer_id, "seats")["usage"] == 1
    api.post(path(customer_id), {"id": "e2", "feature_id": "seats"})


def test_an_array_opens_all(api: Api, team: str) -> None:
    opened = api.post(path(team), [{"id": "b", "feature_id": "seats"}, {"id": "a", "feature_id": "seats"}])
    assert [e["id"] for e in opened["list"]] == ["b", "a"]
    assert [e["id"] for e in api.get(path(team))["list"]] == ["b", "a"]
    expanded = api.get(f"/v1/customers/{team}?expand=entities")
    assert [e["id"] for e in expanded["entities"]] == ["b", "a"]


def test_twice_is_a_conflict_and_closing_frees_the_id(api: Api, team: str) -> None:
    api.post(path(team), {"id": "e1", "feature_id": "seats"})
    api.refused("POST", path(team), {"id": "e1", "feature_id": "seats"}, 409, "entity_already_exists")
    api.call("DELETE", path(team, "e1"))
    api.refused("GET", path(team, "e1"), None, 404, "entity_not_found")
    api.refused("DELETE", path(team, "e1"), None, 404, "entity_not_found")
    assert api.feature(team, "seats")["usage"] == 0
    assert api.post(path(team), {"id": "e1", "name": "again", "feature_id": "seats"})["name"] == "again"
    assert api.get(path(team, "e1"))["features"]["words"]["balance"] == 150


def test_a_switch_keeps_the_seats(api: Api, team: str) -> None:
    """Case 115, with entities."""
    for entity_id in ("e1", "e2", "e3"):
        api.post(path(team), {"id": entity_id, "feature_id": "seats"})
    assert api.attach(team, "bigger_team")["success"] is True
    features = api.get(f"/v1/customers/{team}")["features"]
    assert (features["seats"]["balance"], features["seats"]["usage"]) == (7, 3)
    assert "sso" not in features
    assert (features["words"]["unlimited"], features["words"]["balance"], features["words"]["usage"]) == (True, 0, 0)


def test_wrong_entities(api: Api, team: str) -> None:
    for body in ({}, {"id": "e1"}, {"id": None, "feature_id": "seats"}, {"id": "e1", "feature_id": "sso"}, [], ["x"],
                 [{"id": "e1", "feature_id": "seats"}] * 2):
        api.refused("POST", path(team), body, 400, "invalid_inputs")
    api.refused("POST", path(team), {"id": "e1", "feature_id": "nothing"}, 404, "feature_not_found")
    api.refused("POST", path("nobody"), {"id": "e1", "feature_id": "seats"}, 404, "customer_not_found")
    api.refused("GET", path("nobody"), None, 404, "customer_not_found")
    api.refused("GET", path(team, "nobody"), None, 404, "entity_not_found")
