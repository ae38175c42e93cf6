"""Keys, environments and API versions: who may call, and which shape answers."""

from __future__ import annotations

from typing import Iterator

import pytest

from tests.http import KEY, OTHER_KEY, PUBLIC_KEY, Api, audit

BODY = {"customer_id": "c", "feature_id": "msg"}


@pytest.fixture(scope="module")
def seller(module_api: Api) -> Api:
    module_api.feature("msg")
    module_api.plan("base", {"feature_id": "msg", "included_usage": 100}, is_default=True)
    module_api.post("/v1/customers", {"id": "c"})
    return module_api


@pytest.fixture
def api(seller: Api) -> Iterator[Api]:
    yield seller
    audit(seller)


def with_key(value: str) -> dict[str, str]:
    return {"authorization": value}


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("", "no_secret_key"), ("Basic abc", "no_secret_key"), (KEY, "no_secret_key"), ("Bearer", "no_secret_key"),
        ("Bearer sk_test_123", "invalid_request"), ("Bearer hello", "invalid_request"),
        ("Bearer am_sk_test_unknown_0123456789", "invalid_secret_key"), ("Bearer am_sk_", "invalid_secret_key"),
        (f"Bearer {KEY}x", "invalid_secret_key"), (f"Bearer {KEY[:-1]}", "invalid_secret_key"),
        ("Bearer am_jwt_abc", "invalid_secret_key"), ("Bearer am_oauth_abc", "invalid_secret_key"),
        ("Bearer am_pk_test_unknown", "endpoint_not_public"), (f"Bearer {PUBLIC_KEY}", "endpoint_not_public"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/track", "/v1/customers", "/v1/test_clock"])
def test_a_wrong_key_is_a_401(api: Api, path: str, authorization: str, code: str) -> None:
    answer = api.refused(path, BODY, 401, code, headers=with_key(authorization))
    assert KEY not in answer and "unknown_0123456789" not in answer


@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
def test_every_secret_key_works(api: Api, key: str) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert api.post("/v1/check", BODY, headers=with_key(f"{scheme} {key}"))["allowed"] is True


def test_a_publishable_key_reads_and_no_more(api: Api) -> None:
    headers = with_key(f"Bearer {PUBLIC_KEY}")
    assert api.post("/v1/check", BODY, headers=headers)["allowed"] is True
    assert api.post("/v1/entitled", BODY, headers=headers)["allowed"] is True
    assert api.get("/v1/customers/c", headers=headers)["id"] == "c"
    assert api.get("/v1/products", headers=headers)["list"][0]["id"] == "base"
    for method, path in (
        ("POST", "/v1/track"), ("POST", "/v1/customers"), ("POST", "/v1/customers/c"), ("DELETE", "/v1/customers/c"),
        ("GET", "/v1/features"), ("POST", "/v1/products"), ("POST", "/v1/attach"), ("GET", "/v1/customers/c/entities"),
    ):
        answer = api.call(method, path, BODY if method == "POST" else None, 401, headers=headers)
        assert answer["code"] == "endpoint_not_public"
    answer = api.post("/v1/check", BODY, 401, headers=with_key("Bearer am_pk_test_unknown"))
    assert answer["code"] == "invalid_publishable_key"
    api.refused("/v1/check", BODY, 401, "invalid_publishable_key", headers=with_key("Bearer am_pk_other"))


def test_an_unknown_key_is_echoed_starred(api: Api) -> None:
    message = api.refused("/v1/check", BODY, 401, "invalid_secret_key", headers=with_key("Bearer am_sk_test_abcdefghijklmnopqrstuvwxyz"))
    assert "am_sk_test_abcd****" in message and "efgh" not in message


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/"])
def test_operators_need_no_key(api: Api, path: str) -> None:
    assert api.raw("GET", path, headers=with_key("")).status_code == 200


def test_live_keys_belong_to_live_data(live) -> None:  # type: ignore[no-untyped-def]
    for key, env in (("am_sk_live_x", "live"), ("am_sk_test_y", "sandbox"), ("am_sk_42424242", "sandbox")):
        answer = live.raw("POST", "/v1/check", {**BODY, "feature_id": "nope"}, headers=with_key(f"Bearer {key}"))
        assert answer.status_code == 404 and answer.json()["env"] == env
    assert live.post("/v1/test_clock", {"advance_ms": 1}, 404)["code"] == "invalid_request"


@pytest.fixture(scope="module")
def live(module_apps) -> Api:  # type: ignore[no-untyped-def]
    return module_apps(test_clock=False, secret_keys=("am_sk_live_x", "am_sk_test_y", "am_sk_42424242"))


# Versions


@pytest.mark.parametrize("version", [None, "1.2.0", "1.2", "1.2.7", "2025-05-05", "2025-05-05.clover", "2025-12-01", "beta", "1.4", " 1.2 "])
@pytest.mark.parametrize("path", ["/v1/check", "/v1/track"])
def test_every_name_of_1_2_answers_as_1_2(api: Api, path: str, version: str | None) -> None:
    answer = api.post(path, BODY, headers={"x-api-version": version} if version is not None else {})
    assert answer["code"] == ("feature_found" if path == "/v1/check" else "event_received")


@pytest.mark.parametrize(
    "version", ["banana", "0", "1.3", "1.2.x", "-1", "2025-13-01", "2025-02-30", "1999-01-01", "1.2,2.1", "1" * 50, "٢.١"]
)
@pytest.mark.parametrize("path", ["/v1/check", "/v1/track", "/v1/customers"])
def test_an_unknown_version_is_a_400(api: Api, path: str, version: str) -> None:
    headers = {"x-api-version": version.encode()}
    message = api.refused(path, {**BODY, "id": "new"}, 400, "invalid_api_version", headers=headers)  # type: ignore[arg-type]
    assert message.startswith("x-api-version")


@pytest.mark.parametrize("version", ["0.1", "0.2.0", "1.1", "2025-04-20"])
def test_versions_older_than_1_2_are_named_as_not_built(api: Api, version: str) -> None:
    for path in ("/v1/check", "/v1/track"):
        api.refused(path, BODY, 400, "not_supported", headers={"x-api-version": version})


@pytest.mark.parametrize("version", ["2.1", "2.3.0", "2.4.0", "2.5.0", "3.0", "99", "2026-05-13", "2027-01-01"])
def test_versions_from_2_1_on_are_known_and_the_unknown_ones_newest(api: Api, version: str) -> None:
    """Answered in the shapes of 2.1, or refused by name while those are not built; never unknown."""
    answer = api.raw("POST", "/v1/check", BODY, headers={"x-api-version": version})
    if answer.status_code == 400:
        assert answer.json()["code"] == "not_supported"
    else:
        assert answer.status_code == 200 and set(answer.json()) >= {"allowed", "customer_id", "balance", "flag"}
