"""Promise: `billing_controls` of customers, entities and plans are set, replaced, cleared and shown by
every route that has them, at every version; what is in force is in Redis before the answer."""

from __future__ import annotations

from typing import Any, Iterator

import pytest

from tests.api.rpc import at, rpc, new_id
from tests.http import Api, audit

pytestmark = pytest.mark.ways("asgi")  # the exceptions call check or track

NEWER = ["2.0", "2.1", "2.3", "2.5.0"]
EVERY = ["1.2", *NEWER]
MSG_5 = {"feature_id": "msg", "overage_limit": 5}
DAILY = {"feature_id": "msg", "limit": 3, "interval": "day"}


def spend(limit: Any = 5, **fields: Any) -> dict[str, Any]:
    """A spend limit as it is shown."""
    return {
        "feature_id": "msg", "enabled": True, "limit_type": "absolute", "overage_limit": limit, "skip_overage_billing": False,
        **fields,
    }


def daily(limit: int = 3, usage: int = 0, **fields: Any) -> dict[str, Any]:
    """A usage limit as it is shown."""
    return {
        "feature_id": "msg", "enabled": True, "limit": limit, "interval": "day", "anchor": "billing_cycle", "usage": usage,
        **fields,
    }


@pytest.fixture(scope="module")
def seller(module_api: Api) -> Api:
    api = module_api
    api.feature("msg")
    api.feature("sso", "boolean")
    api.feature("seats", "continuous_use")
    api.plan("free", {"feature_id": "msg", "included_usage": 10, "interval": "month"}, is_default=True)
    rpc(
        api, "2.3", "plans.create", plan_id="capped", name="Capped", add_on=True,
        billing_controls={"spend_limits": [{"feature_id": "msg", "overage_limit": 8}], "usage_limits": [{**DAILY, "limit": 9}]},
    )
    return api


@pytest.fixture
def api(seller: Api) -> Iterator[Api]:
    yield seller
    audit(seller)


def shown(api: Api, customer_id: str, version: str = "2.3") -> Any:
    return api.get(f"/v1/customers/{customer_id}", **at(version))["billing_controls"]


def shown_of(api: Api, customer_id: str, entity_id: str, version: str = "2.3") -> Any:
    return api.get(f"/v1/customers/{customer_id}/entities/{entity_id}", **at(version))["billing_controls"]


def caps(api: Api, customer_id: str) -> dict[tuple[str, str], tuple[Any, ...]]:
    """What scripts find in Redis."""
    state = api.run(api.ctx.engine.view(customer_id))
    assert state is not None
    return {place: tuple(found) for place, found in state.caps.items()}


@pytest.mark.parametrize("version", EVERY)
def test_a_customer_is_created_with_controls(api: Api, version: str) -> None:
    first, second = new_id(), new_id()
    controls = {"spend_limits": [MSG_5], "overage_allowed": [{"feature_id": "msg", "enabled": True}]}
    api.post("/v1/customers", {"id": first, "billing_controls": controls}, **at(version))
    rpc(api, version, "customers.get_or_create", customer_id=second, billing_controls=controls)
    for c in (first, second):
        assert shown(api, c) == {
            "spend_limits": [spend(source="customer")],
            "overage_allowed": [{"feature_id": "msg", "enabled": True, "source": "customer"}],
        }
        assert caps(api, c) == {("msg", ""): ([0, 5_000_000], 1, None)}
    rpc(api, version, "customers.get_or_create", customer_id=first, billing_controls={"spend_limits": []})
    assert "spend_limits" in shown(api, first), "one that exists is returned, not changed"


@pytest.mark.parametrize("version", EVERY)
@pytest.mark.parametrize("how", ["PATCH", "POST", "rpc"])
def test_a_list_replaces_a_list_and_no_other(api: Api, version: str, how: str) -> None:
    c = api.customer()

    def update(controls: Any) -> Any:
        if how == "rpc":
            return rpc(api, version, "customers.update", customer_id=c, billing_controls=controls)
        return api.call(how, f"/v1/customers/{c}", {"billing_controls": controls}, **at(version))

    answer = update({"spend_limits": [MSG_5], "usage_limits": [DAILY]})
    assert ("billing_controls" in answer) == (version != "1.2")
    assert shown(api, c) == {"spend_limits": [spend(source="customer")], "usage_limits": [daily(source="customer")]}
    assert caps(api, c) == {("msg", ""): ([0, 5_000_000], -1, [3_000_000, 3, 0])}
    update({"spend_limits": [{**MSG_5, "overage_limit": 6}, {"overage_limit": 1}]})
    assert [limit["overage_limit"] for limit in shown(api, c)["spend_limits"]] == [6, 1]
    assert len(shown(api, c)["usage_limits"]) == 1
    update({"spend_limits": []})
    assert shown(api, c) == {"usage_limits": [daily(source="customer")]}
    update({})
    update(None)
    assert shown(api, c) == {"usage_limits": [daily(source="customer")]}
    update({"usage_limits": []})
    assert shown(api, c) == {} and caps(api, c) == {}


def test_the_other_fields_of_an_update_go_with_it(api: Api) -> None:
    c = api.customer(name="Old")
    answer = rpc(api, "2.3", "customers.update", customer_id=c, name="New", billing_controls={"spend_limits": [MSG_5]})
    assert (answer["name"], answer["billing_controls"]) == ("New", {"spend_limits": [spend(source="customer")]})


@pytest.mark.parametrize("version", NEWER)
def test_the_same_is_shown_at_every_version_of_2x(api: Api, version: str) -> None:
    c = api.customer("capped")
    rpc(api, version, "customers.update", customer_id=c, billing_controls={"overage_allowed": [{"feature_id": "msg"}]})
    expected = {
        "spend_limits": [spend(8, source="plan")], "usage_limits": [daily(9, source="plan")],
        "overage_allowed": [{"feature_id": "msg", "enabled": True, "source": "customer"}],
    }
    assert shown(api, c, version) == expected
    [listed] = [one for one in rpc(api, version, "customers.list")["list"] if one["id"] == c]
    assert listed["billing_controls"] == expected


def test_1_2_shows_none(api: Api) -> None:
    c = api.customer("capped")
    assert "billing_controls" not in api.get(f"/v1/customers/{c}")


def test_a_plans_controls_are_inherited_until_hidden(api: Api) -> None:
    c = api.customer("capped")
    assert shown(api, c) == {"spend_limits": [spend(8, source="plan")], "usage_limits": [daily(9, source="plan")]}
    assert caps(api, c) == {("msg", ""): ([0, 8_000_000], -1, [9_000_000, 3, 0])}
    rpc(api, "2.3", "customers.update", customer_id=c, billing_controls={"spend_limits": [{**MSG_5, "enabled": False}]})
    assert shown(api, c)["spend_limits"] == [spend(5, enabled=False, source="customer")]
    assert caps(api, c) == {("msg", ""): (None, -1, [9_000_000, 3, 0])}
    rpc(api, "2.3", "customers.update", customer_id=c, billing_controls={"spend_limits": []})
    assert shown(api, c)["spend_limits"] == [spend(8, source="plan")]


@pytest.mark.parametrize("version", EVERY)
def test_an_entitys_controls(api: Api, version: str) -> None:
    c = api.customer("capped")
    made = api.post(
        f"/v1/customers/{c}/entities",
        {"id": "e1", "feature_id": "seats", "billing_controls": {"usage_limits": [DAILY]}}, **at(version),
    )
    rpc(api, version, "entities.create", customer_id=c, entity_id="e2", feature_id="seats")
    if version != "1.2":
        assert made["billing_controls"]["usage_limits"] == [daily(source="entity")]
    assert shown_of(api, c, "e1") == {"spend_limits": [spend(8, source="plan")], "usage_limits": [daily(source="entity")]}
    assert shown_of(api, c, "e2") == {"spend_limits": [spend(8, source="plan")], "usage_limits": [daily(9, source="plan")]}
    assert caps(api, c)["msg", "e1"] == (None, -1, [3_000_000, 3, 0])
    rpc(api, version, "entities.update", customer_id=c, entity_id="e1", billing_controls={
        "usage_limits": [], "spend_limits": [{**MSG_5, "enabled": False}],
    })
    assert shown_of(api, c, "e1") == {
        "spend_limits": [spend(5, enabled=False, source="entity")], "usage_limits": [daily(9, source="plan")],
    }
    assert caps(api, c)["msg", "e1"] == ([], -1, None)
    rpc(api, version, "customers.update", customer_id=c, billing_controls={"usage_limits": [{**DAILY, "limit": 4}]})
    assert shown_of(api, c, "e2")["usage_limits"] == [daily(4, source="customer")]
    api.call("DELETE", f"/v1/customers/{c}/entities/e1")
    assert ("msg", "e1") not in caps(api, c)


def test_many_entities_at_once(api: Api) -> None:
    c = api.customer()
    api.post(f"/v1/customers/{c}/entities", [
        {"id": f"e{i}", "feature_id": "seats", "billing_controls": {"overage_allowed": [{"feature_id": "msg", "enabled": i > 0}]}}
        for i in range(3)
    ])
    assert {place: found[1] for place, found in caps(api, c).items()} == {("msg", f"e{i}"): int(i > 0) for i in range(3)}


@pytest.mark.ways("asgi", "short")
def test_the_counter_of_the_current_window_is_shown(api: Api) -> None:
    c = api.customer()
    rpc(api, "2.3", "entities.create", customer_id=c, entity_id="e1", feature_id="seats", billing_controls={"usage_limits": [DAILY]})
    rpc(api, "2.3", "customers.update", customer_id=c, billing_controls={"usage_limits": [{**DAILY, "limit": 5, "anchor": "utc"}]})
    api.track(c, "msg", 2)
    api.track(c, "msg", 1, entity_id="e1")
    assert shown(api, c)["usage_limits"][0]["usage"] == 2
    assert shown_of(api, c, "e1")["usage_limits"][0]["usage"] == 1
    api.advance(2 * 86_400_000)
    assert shown(api, c)["usage_limits"][0]["usage"] == 0
    assert shown_of(api, c, "e1")["usage_limits"][0]["usage"] == 0


@pytest.mark.parametrize("version", EVERY)
@pytest.mark.parametrize(("controls", "path"), [
    (5, ""), ({"spend_limits": 5}, ".spend_limits"), ({"spend_limits": [{"overage_limit": -1}]}, ".spend_limits[0].overage_limit"),
    ({"usage_limits": [{**DAILY, "feature_id": "nope"}]}, ".usage_limits[0].feature_id"),
    ({"overage_allowed": [{"feature_id": "sso"}]}, ".overage_allowed[0].feature_id"),
    ({"usage_limits": [DAILY, DAILY]}, ".usage_limits[1]"),
])
def test_wrong_controls_are_refused_everywhere(api: Api, version: str, controls: Any, path: str) -> None:
    c = api.customer()
    api.entity(c, "e1")
    at_field = f"billing_controls{path}: "
    for method, body in (
        ("customers.get_or_create", {"customer_id": new_id()}), ("customers.get_or_create", {"customer_id": c}),
        ("customers.update", {"customer_id": c}), ("entities.create", {"customer_id": c, "entity_id": "e2", "feature_id": "seats"}),
        ("entities.update", {"customer_id": c, "entity_id": "e1"}),
    ):
        message = api.refused(f"/v1/{method}", {**body, "billing_controls": controls}, 400, "invalid_inputs", **at(version))
        assert message.startswith(at_field), message


def test_who_does_not_exist_has_no_controls(api: Api) -> None:
    c = api.customer()
    api.refused("/v1/customers.update", {"customer_id": "nobody", "billing_controls": {}}, 404, "customer_not_found")
    api.refused("/v1/entities.update", {"customer_id": c, "entity_id": "e9", "billing_controls": {}}, 404, "entity_not_found")


@pytest.mark.ways("asgi", "short")
def test_customer_data_of_a_call_may_have_controls(api: Api) -> None:
    c = new_id()
    api.track(c, "msg", 1, customer_data={"billing_controls": {"spend_limits": [MSG_5]}})
    assert shown(api, c) == {"spend_limits": [spend(source="customer")]}
    message = api.post("/v1/track", {
        "customer_id": new_id(), "feature_id": "msg", "customer_data": {"billing_controls": {"spend_limits": [1]}},
    }, 400)["message"]
    assert message.startswith("customer_data.billing_controls.spend_limits[0]: ")


@pytest.mark.parametrize("version", NEWER)
def test_a_plans_controls_there_and_back(api: Api, version: str) -> None:
    id_ = new_id()
    controls = {
        "spend_limits": [spend(2)], "usage_limits": [{name: value for name, value in daily().items() if name != "usage"}],
        "usage_alerts": [{"feature_id": "msg", "enabled": False, "threshold": 80, "threshold_type": "usage_percentage"}],
        "auto_topups": [{"feature_id": "msg", "enabled": False, "threshold": 1, "quantity": 100}],
    }
    made = rpc(api, version, "plans.create", plan_id=id_, name="P", billing_controls=controls)
    assert made["billing_controls"] == controls
    assert rpc(api, version, "plans.get", plan_id=id_) == made
    changed = rpc(api, version, "plans.update", plan_id=id_, billing_controls={"usage_alerts": [], "auto_topups": []})
    assert changed["version"] == 1 and set(changed["billing_controls"]) == {"spend_limits", "usage_limits"}
    c = api.customer(id_)
    unlike = {"spend_limits": [spend(3)]}
    assert api.post(f"/v1/plans/{id_}/has_customers", {"billing_controls": unlike}, **at(version))["will_version"]
    newer = rpc(api, version, "plans.update", plan_id=id_, billing_controls=unlike)
    assert (newer["version"], newer["billing_controls"]["spend_limits"]) == (2, [spend(3)])
    assert shown(api, c)["spend_limits"] == [spend(2, source="plan")], "who holds a version keeps it"
    kept = rpc(api, version, "plans.update", plan_id=id_, name="Q")
    assert kept["billing_controls"] == newer["billing_controls"]


def test_a_feature_that_controls_name_is_in_use(api: Api) -> None:
    feature_id, c = api.feature(new_id()), api.customer()
    named = {"overage_allowed": [{"feature_id": feature_id, "enabled": True}]}
    rpc(api, "2.3", "customers.update", customer_id=c, billing_controls=named)
    api.sync()
    api.call("DELETE", f"/v1/features/{feature_id}", None, 400)
    rpc(api, "2.3", "customers.update", customer_id=c, billing_controls={"overage_allowed": []})
    api.sync()
    rpc(api, "2.3", "plans.create", plan_id=new_id(), name="P", billing_controls=named)
    api.call("DELETE", f"/v1/features/{feature_id}", None, 400)
