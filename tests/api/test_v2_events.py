"""Listing events: newest first, by tracked feature, range and page, at every version."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Iterator

import pytest

from tests.http import HOUR_MS, Api, audit

VERSIONS = ["1.2", "2.0", "2.1", "2.3", "2.5.0"]
ITEM = {"id", "timestamp", "feature_id", "customer_id", "value", "properties", "applied", "entity_id", "event_name"}


@pytest.fixture(scope="module")
def seller(module_api: Api) -> Api:
    api = module_api
    api.feature("msg", event_names=["both"])
    api.feature("img", event_names=["both"])
    api.feature("seats", "continuous_use")
    api.feature("credits", "credit_system", credit_schema=[{"metered_feature_id": "img", "credit_cost": 2}])
    api.plan("base", {"feature_id": "msg", "included_usage": 10}, {"feature_id": "credits", "included_usage": 100},
             {"feature_id": "seats", "included_usage": 5}, is_default=True)
    return api


@pytest.fixture
def api(seller: Api) -> Iterator[Api]:
    yield seller
    audit(seller)


def listed(api: Api, version: str = "2.3", status: int = 200, path: str = "/v1/events.list", **body: Any) -> Any:
    api.sync()
    return api.post(path, body, status, headers={"x-api-version": version})


@pytest.mark.parametrize("version", VERSIONS)
def test_newest_first_with_what_was_asked_and_applied(api: Api, version: str) -> None:
    c = api.customer()
    first = api.track(c, "msg", 8, properties={"a": 1})["id"]
    second = api.track(c, "msg", Decimal("4.5"))["id"]
    third = api.track(c, "img", 3)["id"]
    page = listed(api, version, customer_id=c)
    assert [(e["id"], e["feature_id"], e["value"], e["applied"]) for e in page["list"]] == [
        (third, "img", 3, 3), (second, "msg", Decimal("4.5"), 2), (first, "msg", 8, 8),
    ]
    newer = version in ("2.3", "2.5.0")
    assert all(set(e) == ITEM | ({"deductions"} if newer else set()) for e in page["list"])
    assert [e["properties"] for e in page["list"]] == [{}, {}, {"a": 1}]
    assert {e["customer_id"] for e in page["list"]} == {c}
    assert set(page) == ({"list", "next_cursor"} if newer else {"list", "limit", "offset", "total", "has_more"})
    assert listed(api, version, path="/v1/events/list", customer_id=c) == page
    only = listed(api, version, customer_id=c, feature_id="img")["list"]
    assert [e["id"] for e in only] == [third], "also when a credit system paid"
    assert listed(api, version, customer_id=c, feature_id="credits")["list"] == []
    assert [e["id"] for e in listed(api, version, customer_id=c, feature_id=["img", "msg"])["list"]] == [third, second, first]


@pytest.mark.parametrize("version", ["1.2", "2.2", "2.3"])
def test_pages(api: Api, version: str) -> None:
    c = api.customer()
    ids = [api.track(c, "msg", 1)["id"] for _ in range(3)]
    both = api.post("/v1/track", {"customer_id": c, "event_name": "both", "value": 2})["id"]
    want = [(both, "msg"), (both, "img"), *((id_, "msg") for id_ in reversed(ids))]
    whole = listed(api, version, customer_id=c)["list"]
    assert [(e["id"], e["feature_id"]) for e in whole] == want
    found: list[dict[str, Any]] = []
    place: Any = "" if version == "2.3" else 0
    name = "start_cursor" if version == "2.3" else "offset"
    for _ in range(5):
        page = listed(api, version, customer_id=c, limit=1, **{name: place})
        found += page["list"]
        place = page["next_cursor"] if version == "2.3" else place + 1
    assert found == whole and (place is None or page["has_more"] is False)


def test_a_range_holds_both_its_ends(api: Api) -> None:
    c = api.customer()
    ids = []
    for _ in range(3):
        ids.append(api.track(c, "msg", 1)["id"])
        api.advance(HOUR_MS)
    newest, middle, oldest = listed(api, customer_id=c)["list"]
    def found(**span: int) -> list[str]:
        return [e["id"] for e in listed(api, customer_id=c, custom_range=span)["list"]]
    assert found(start=middle["timestamp"], end=middle["timestamp"]) == [middle["id"]]
    assert found(start=middle["timestamp"]) == [newest["id"], middle["id"]]
    assert found(end=middle["timestamp"]) == [middle["id"], oldest["id"]]
    assert found(start=newest["timestamp"] + 1) == []


def test_one_entity(api: Api) -> None:
    c = api.customer()
    api.entity(c, "e1")
    api.track(c, "msg", 1)
    own = api.track(c, "msg", 2, entity_id="e1")["id"]
    assert [(e["id"], e["entity_id"]) for e in listed(api, customer_id=c, entity_id="e1", feature_id="msg")["list"]] == [(own, "e1")]


def test_an_event_outlives_its_feature(api: Api) -> None:
    c = api.customer()
    api.feature("gone", precision=2)
    api.track(c, "gone", Decimal("1.25"))
    api.call("DELETE", "/v1/features/gone")
    [shown] = listed(api, customer_id=c)["list"]
    assert (shown["feature_id"], shown["value"], shown["applied"]) == ("gone", Decimal("1.25"), 0)


@pytest.mark.parametrize(("body", "status", "code"), [
    ({}, 400, "not_supported"), ({"customer_id": "nobody"}, 404, "customer_not_found"),
    ({"customer_id": "x", "feature_id": 5}, 400, "invalid_inputs"), ({"customer_id": "x", "feature_id": []}, 400, "invalid_inputs"),
    ({"customer_id": "x", "custom_range": 5}, 400, "invalid_inputs"),
    ({"customer_id": "x", "custom_range": {"start": "a"}}, 400, "invalid_inputs"),
    ({"customer_id": "x", "custom_range": {"start": 5, "end": 4}}, 400, "invalid_inputs"),
    ({"customer_id": "x", "limit": 1001}, 400, "invalid_inputs"), ({"customer_id": "x", "start_cursor": "Yy4x"}, 400, "invalid_cursor"),
])
def test_refusals(api: Api, body: dict[str, Any], status: int, code: str) -> None:
    api.refused("/v1/events.list", body, status, code, headers={"x-api-version": "2.3"})


@pytest.mark.parametrize("path", ["/v1/events.aggregate", "/v1/events/aggregate", "/v1/query"])
def test_sums_are_not_built(api: Api, path: str) -> None:
    api.refused(path, {"customer_id": "x", "feature_id": "msg"}, 400, "not_supported")
