"""A grant per entity is for the entities of one feature, in what a check shows too."""

from __future__ import annotations

from tests.cases.world import E, M, P, World


def test_a_check_of_an_entity_shows_its_own_shares_alone(world: World) -> None:
    world.feature("rooms", "continuous_use")
    c = world.customer(world.plan(M(5), E(50), E(7).with_(entity_feature_id="rooms")))
    c.entities("e1")
    for version in ("1.2", "2.0", "2.1"):
        headers = {"x-api-version": version}
        body = {"customer_id": c.id, "feature_id": "msg", "entity_id": "e1"}
        seen = c.api.post("/v1/check", body, headers=headers)
        numbers = seen if version == "1.2" else seen["balance"]
        name = {"1.2": "balance", "2.0": "current_balance", "2.1": "remaining"}[version]
        assert (numbers[name], len(numbers["breakdown"])) == (55, 2)
    assert c.bal(entity="e1") == 55


def test_a_list_of_entities_is_made_whole_or_not_at_all(world: World) -> None:
    """A refused list leaves no entity, no seat taken, no event and no share."""
    c = world.customer(world.plan(P(2, 0).of("seats"), E(50)))
    c.entities("e0")
    before = (c.bal("seats"), c.bal(), len(c.api.events(c.id)))
    body = [{"id": name, "feature_id": "seats"} for name in ("e1", "e2")]
    assert c.api.post(f"/v1/customers/{c.id}/entities", body, 400)["code"] == "usage_limit_exceeded"
    assert (c.bal("seats"), c.bal(), len(c.api.events(c.id))) == before
    assert [entity["id"] for entity in c.api.get(f"/v1/customers/{c.id}/entities")["list"]] == ["e0"]
    c.api.post(f"/v1/customers/{c.id}/entities", body[:1])
    assert (c.bal("seats"), c.bal()) == (0, 100)
    c.api.sync()
    assert c.api.differences() == []
