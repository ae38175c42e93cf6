"""Promise: the catalog routes speak wire version 1.2, field for field, and atmn 0.0.36 can push
through them, twice, the second time changing nothing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, insert
from starlette.applications import Starlette

from sidecar.api.catalog import routes
from sidecar.catalog.snapshot import CatalogCache
from sidecar.clock import Clock
from sidecar.store import tables as t
from sidecar.store.db import Store

FEATURES: list[dict[str, Any]] = [
    {"id": "usd_credits", "name": "USD credits", "type": "credit_system", "credit_schema": [
        {"metered_feature_id": "basic_messages", "credit_cost": 0.01},
        {"metered_feature_id": "premium_messages", "credit_cost": 0.1},
    ]},
    {"id": "basic_messages", "name": "Basic messages", "type": "single_use"},
    {"id": "messages", "name": "Messages", "type": "single_use"},
    {"id": "premium_messages", "name": "Premium messages", "type": "single_use"},
]
PRODUCTS: list[dict[str, Any]] = [
    {"id": "top_up", "name": "Top up", "items": [
        {"price": 10, "billing_units": 100, "feature_id": "messages", "usage_model": "prepaid"},
    ]},
    {"id": "free", "name": "Free", "is_default": True, "items": [
        {"included_usage": 10, "feature_id": "messages", "interval": "month"},
        {"included_usage": 5, "feature_id": "usd_credits", "interval": "month"},
    ]},
    {"id": "pro", "name": "Pro", "items": [
        {"price": 10, "interval": "month"}, {"included_usage": 10, "feature_id": "usd_credits", "interval": "month"},
    ]},
]


@dataclass
class SomeSettings:
    currency: str = "usd"


@dataclass
class SomeContext:
    """What the catalog's handlers use of a context, real parts only."""

    store: Store
    catalog: CatalogCache
    clock: Clock
    settings: SomeSettings


class Api:
    """The catalog's routes over a real database, called in memory."""

    def __init__(self, store: Store):
        app = Starlette(routes=routes)
        app.state.context = SomeContext(store, CatalogCache(store), Clock(), SomeSettings())
        self.catalog = app.state.context.catalog
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://sidecar")

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body)
        answer = await self.client.request(method, path, content=data, headers=headers)
        return answer.status_code, answer.json()

    async def ok(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = await self(method, path, body)
        assert status == 200, answer
        return answer

    async def refused(self, method: str, path: str, body: Any = None) -> tuple[int, str, str]:
        status, answer = await self(method, path, body)
        assert status >= 400 and set(answer) == {"message", "code", "env"}
        return status, answer["code"], answer["message"]


@pytest.fixture
def run(store: Store):  # type: ignore[no-untyped-def]
    """Runs a test's coroutine with the routes over a fresh database."""

    def call(test: Any) -> None:
        async def within() -> None:
            api = Api(store)
            async with api.client:
                await test(api)

        asyncio.run(within())

    return call


async def pushed(api: Api) -> None:
    for feature in FEATURES:
        await api.ok("POST", "/v1/features", feature)
    for product in PRODUCTS:
        await api.ok("POST", "/v1/products", product)


def hold(conn: Connection, uid: int, plan_id: str) -> None:
    conn.execute(insert(t.customers).values(id="ann", p=0, name="Ann", metadata={}, created_at=1))
    conn.execute(insert(t.customer_plans).values(
        cid=1, plan_uid=uid, plan_id=plan_id, status="active", quantity=1, options=[], started_at=1, anchor=1,
    ))


def test_a_feature_is_answered_field_for_field(run: Any) -> None:
    async def test(api: Api) -> None:
        await api.ok("POST", "/v1/features", FEATURES[1])
        assert await api.ok("POST", "/v1/features", {**FEATURES[0], "credit_schema": FEATURES[0]["credit_schema"][:1], "extra": 1}) == {
            "id": "usd_credits", "name": "USD credits", "type": "credit_system", "display": None,
            "credit_schema": [{"metered_feature_id": "basic_messages", "credit_cost": 0.01}],
            "event_names": [], "precision": 6, "archived": False,
        }
        assert (await api.ok("POST", "/v1/features", {"id": "sso", "type": "static"}))["type"] == "boolean"
        one = await api.ok("GET", "/v1/features/sso")
        assert (one["name"], one["credit_schema"]) == ("sso", None)
        assert [f["id"] for f in (await api.ok("GET", "/v1/features"))["list"]] == ["basic_messages", "usd_credits", "sso"]
        assert (await api.refused("GET", "/v1/features/nope"))[:2] == (404, "feature_not_found")

    run(test)


def test_a_product_is_answered_field_for_field(run: Any) -> None:
    async def test(api: Api) -> None:
        await pushed(api)
        product = await api.ok("GET", "/v1/products/top_up")
        assert product.pop("created_at") > 1_700_000_000_000
        assert product == {
            "id": "top_up", "name": "Top up", "group": None, "env": "sandbox", "is_add_on": False, "is_default": False,
            "archived": False, "version": 1, "free_trial": None, "base_variant_id": None,
            "items": [{
                "type": "priced_feature", "feature_id": "messages", "feature_type": "single_use", "included_usage": 0,
                "interval": None, "interval_count": 1, "price": 10, "tiers": None, "usage_model": "prepaid",
                "billing_units": 100, "usage_limit": None, "reset_usage_when_enabled": True, "entity_feature_id": None,
                "display": {"primary_text": "$10 per 100 messages", "secondary_text": None},
            }],
        }
        price, credits = (await api.ok("GET", "/v1/products/pro"))["items"]
        assert (price["type"], price["price"], price["interval"], price["feature_id"]) == ("price", 10, "month", None)
        assert price["display"] == {"primary_text": "$10", "secondary_text": "per month"}
        assert (credits["type"], credits["feature_type"], credits["included_usage"]) == ("feature", "single_use", 10)
        assert (await api.refused("GET", "/v1/products/nope"))[:2] == (404, "product_not_found")
        for path in ("/v1/products", "/v1/plans", "/v1/products_beta"):
            assert [p["id"] for p in (await api.ok("GET", path))["list"]] == ["top_up", "free", "pro"]

    run(test)


def test_atmn_pushes_in_parallel_and_again(run: Any) -> None:
    """Features and products are posted at once in any order; again, the taken ids are told by
    code and updates follow that change nothing."""

    async def test(api: Api) -> None:
        await asyncio.gather(*(api.ok("POST", "/v1/features", feature) for feature in FEATURES))
        await asyncio.gather(*(api.ok("POST", "/v1/products", product) for product in PRODUCTS))
        first = await api.catalog.refresh()
        assert {id_: len(systems) for id_, systems in first.systems_of.items()} == {"basic_messages": 1, "premium_messages": 1}
        for feature in FEATURES:
            assert (await api.refused("POST", "/v1/features", feature))[:2] == (409, "duplicate_feature_id")
            await api.ok("POST", f"/v1/features/{feature['id']}", feature)
        for product in PRODUCTS:
            assert (await api.refused("POST", "/v1/products", product))[:2] == (400, "product_already_exists")
            told = await api.ok("POST", f"/v1/products/{product['id']}/has_customers", product)
            assert told == {"current_version": 1, "will_version": False, "archived": False}
            await api.ok("POST", f"/v1/products/{product['id']}", product)
        assert await api.catalog.refresh() is first

    run(test)


def test_of_creations_at_once_one_wins(run: Any) -> None:
    async def test(api: Api) -> None:
        answers = await asyncio.gather(*(api("POST", "/v1/features", FEATURES[1]) for _ in range(6)))
        assert sorted(status for status, _ in answers) == [200, 409, 409, 409, 409, 409]

    run(test)


def test_an_update_changes_what_is_given_only(run: Any) -> None:
    async def test(api: Api) -> None:
        await pushed(api)
        updated = await api.ok("POST", "/v1/products/free", {"name": "Gratis"})
        assert (updated["name"], updated["is_default"], len(updated["items"])) == ("Gratis", True, 2)
        feature = await api.ok("POST", "/v1/features/messages", {"event_names": ["chat"]})
        assert (feature["name"], feature["event_names"]) == ("Messages", ["chat"])
        assert (await api.catalog.refresh()).features_of_event == {"chat": ("messages",)}
        assert (await api.refused("POST", "/v1/features/messages", {"id": "other"}))[:2] == (400, "not_supported")
        assert (await api.refused("POST", "/v1/features/nope", {}))[:2] == (404, "feature_not_found")
        assert (await api.refused("POST", "/v1/products/nope", {}))[:2] == (404, "product_not_found")

    run(test)


def test_a_held_product_gets_a_new_version(run: Any, store: Store) -> None:
    async def test(api: Api) -> None:
        await pushed(api)
        uid = (await api.catalog.refresh()).plans["free"].uid
        store.write_sync(hold, uid, "free")
        items = {"items": [{"feature_id": "messages", "included_usage": 20, "interval": "month"}]}
        told = await api.ok("POST", "/v1/products/free/has_customers", items)
        assert told == {"current_version": 1, "will_version": True, "archived": False}
        assert (await api.ok("POST", "/v1/products/free", items))["version"] == 2
        assert (await api.catalog.refresh()).plans_by_uid[uid].items[0].included_usage == 10
        assert await api.ok("GET", "/v1/products/free/deletion_info") == {"totalCount": 1, "customerName": "Ann"}
        assert (await api.refused("DELETE", "/v1/products/free?all_versions=true"))[:2] == (400, "invalid_request")
        assert await api.ok("DELETE", "/v1/products/free") == {"success": True}
        assert (await api.ok("GET", "/v1/products/free"))["version"] == 1

    run(test)


def test_archived_ones_are_listed_only_on_request(run: Any) -> None:
    async def test(api: Api) -> None:
        await pushed(api)
        await api.ok("POST", "/v1/products/pro", {"archived": True})
        await api.ok("POST", "/v1/features/messages", {"archived": True})
        for name, total in (("products", 3), ("features", 4)):
            assert len((await api.ok("GET", f"/v1/{name}"))["list"]) == total - 1
            assert len((await api.ok("GET", f"/v1/{name}?include_archived=true"))["list"]) == total

    run(test)


def test_deleting_needs_that_nothing_uses_it(run: Any) -> None:
    async def test(api: Api) -> None:
        await pushed(api)
        assert await api.ok("GET", "/v1/features/messages/deletion_info") == {"totalCount": 2, "productName": "Top up"}
        assert (await api.refused("DELETE", "/v1/features/messages"))[:2] == (400, "invalid_request")
        assert "usd_credits" in (await api.refused("DELETE", "/v1/features/basic_messages"))[2]
        for name in ("top_up", "free", "pro"):
            assert await api.ok("DELETE", f"/v1/products/{name}") == {"success": True}
        assert await api.ok("DELETE", "/v1/features/messages") == {"success": True}
        assert (await api.refused("DELETE", "/v1/features/messages"))[:2] == (404, "feature_not_found")

    run(test)


def test_what_is_wrong_is_400_and_nothing_changes(run: Any) -> None:
    async def test(api: Api) -> None:
        await pushed(api)
        before = await api.catalog.refresh()
        for path, body, code, message in (
            ("/v1/products", {"id": "x", "name": "X", "items": [{"feature_id": "nope", "included_usage": 1}]}, "invalid_inputs", "items[0].feature_id: "),
            ("/v1/products", {"id": "x"}, "invalid_inputs", "name: "),
            ("/v1/products", {"id": "x", "name": "X", "items": {}}, "invalid_inputs", "items: "),
            ("/v1/products", [], "invalid_inputs", "body: "),
            ("/v1/products/free", {"items": [{"price": 1}]}, "invalid_inputs", "is_default: "),
            ("/v1/products/free", {"free_trial": {"length": 7}}, "not_supported", "free_trial: "),
            ("/v1/features/messages", {"precision": 2}, "invalid_inputs", "precision: "),
            ("/v1/features/messages", {"type": "boolean"}, "invalid_inputs", "type: "),
            ("/v1/features", {"id": "c", "type": "credit_system", "credit_schema": [{"metered_feature_id": "usd_credits", "credit_cost": 1}]}, "invalid_inputs", "credit_schema[0].metered_feature_id: "),
        ):
            status, found, text = await api.refused("POST", path, body)
            assert (status, found) == (400, code) and text.startswith(message), (path, body, text)
        assert await api.catalog.refresh() is before

    run(test)


def test_a_member_that_comes_later_must_suit_its_system(run: Any) -> None:
    async def test(api: Api) -> None:
        await api.ok("POST", "/v1/features", FEATURES[0])
        assert (await api.refused("POST", "/v1/features", {"id": "basic_messages", "type": "boolean"}))[2].startswith("type: ")
        assert (await api.catalog.refresh()).systems_of == {}
        await api.ok("POST", "/v1/features", FEATURES[1])
        assert list((await api.catalog.refresh()).systems_of) == ["basic_messages"]

    run(test)


def test_shapes_of_old_versions_are_refused(run: Any) -> None:
    async def test(api: Api) -> None:
        status, answer = await api("GET", "/v1/products", **{"x-api-version": "1.1.0"})
        assert (status, answer["code"]) == (400, "not_supported")
        status, answer = await api("GET", "/v1/features", **{"x-api-version": "1.2.0"})
        assert status == 200

    run(test)


def test_the_organization_is_named(run: Any) -> None:
    async def test(api: Api) -> None:
        for path in ("/v1/organization", "/v1/organization/me"):
            answer = await api.ok("GET", path)
            assert set(answer) >= {"id", "name", "slug", "env"} and answer["env"] == "sandbox"

    run(test)


def test_polling_sees_a_change_of_another_process_within_a_second(run: Any, store: Store) -> None:
    async def test(api: Api) -> None:
        other = CatalogCache(store)
        polling = asyncio.create_task(other.poll_forever())
        try:
            await api.ok("POST", "/v1/features", FEATURES[1])
            async with asyncio.timeout(1):
                while "basic_messages" not in other.current.features:
                    await asyncio.sleep(0.02)
        finally:
            polling.cancel()

    run(test)
