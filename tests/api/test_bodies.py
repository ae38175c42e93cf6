"""Bodies and transports: JSON and MessagePack, in memory, over TCP and over a Unix socket."""

from __future__ import annotations

import asyncio
import socket
from decimal import Decimal
from pathlib import Path
from typing import Any, Iterator

import httpx
import msgpack
import pytest

from tests.http import KEY, MSGPACK, Api, audit, memory_folder, served

D = Decimal
AUTHORIZED = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def seller(module_api: Api) -> Api:
    module_api.feature("msg")
    module_api.plan("base", {"feature_id": "msg", "included_usage": 100, "interval": "month"}, is_default=True)
    return module_api


@pytest.fixture
def api(seller: Api) -> Iterator[Api]:
    yield seller
    audit(seller)


def packed(api: Api, path: str, body: Any, **headers: str) -> httpx.Response:
    return api.raw("POST", path, content=msgpack.packb(body), headers={"content-type": MSGPACK, **headers})


@pytest.mark.parametrize("content_type", [MSGPACK, "application/x-msgpack", f"{MSGPACK}; charset=binary"])
def test_a_messagepack_body_is_the_same_call(api: Api, content_type: str) -> None:
    c = api.customer()
    body = {"customer_id": c, "feature_id": "msg", "value": 2.5}
    answer = packed(api, "/v1/track", body, **{"content-type": content_type})
    assert answer.headers["content-type"] == "application/json" and answer.json()["code"] == "event_received"
    assert api.balances(c)["msg"]["balance"] == D("97.5")


def test_a_messagepack_answer_says_what_the_json_one_says(api: Api) -> None:
    c = api.customer()
    api.track(c, value=D("0.25"))
    body = {"customer_id": c, "feature_id": "msg", "required_balance": D("1.5")}
    as_json = api.post("/v1/check", body)
    answer = api.raw("POST", "/v1/check", body, headers={"accept": MSGPACK})
    assert answer.headers["content-type"] == MSGPACK
    shown = msgpack.unpackb(answer.content)
    assert shown == {**as_json, "balance": 99.75, "usage": 0.25, "required_balance": 1.5, "breakdown": shown["breakdown"]}
    assert isinstance(shown["included_usage"], int) and shown["breakdown"][0]["balance"] == 99.75


def test_a_refusal_comes_in_messagepack_too(api: Api) -> None:
    answer = packed(api, "/v1/track", {"customer_id": "c", "feature_id": "nope"}, accept=MSGPACK)
    assert answer.status_code == 404 and answer.headers["content-type"] == MSGPACK
    assert msgpack.unpackb(answer.content)["code"] == "feature_not_found"


def test_messagepack_floats_are_their_shortest_decimal(api: Api) -> None:
    c = api.customer()
    for _ in range(3):
        packed(api, "/v1/track", {"customer_id": c, "feature_id": "msg", "value": 0.1})
    assert api.balances(c)["msg"]["usage"] == D("0.3"), "0.1 three times, not 0.30000000000000004"
    assert [e["value"] for e in api.events(c)] == ["0.1"] * 3


def test_the_routes_of_both_styles_are_one(api: Api) -> None:
    c = api.customer()
    for path in ("/v1/check", "/v1/entitled", "/v1/balances.check"):
        assert api.post(path, {"customer_id": c, "feature_id": "msg"})["allowed"] is True
    for path in ("/v1/track", "/v1/events", "/v1/balances.track"):
        api.post(path, {"customer_id": c, "feature_id": "msg"})
    assert api.balances(c)["msg"]["usage"] == 3


def test_async_answers_202_and_has_been_applied(api: Api) -> None:
    c = api.customer()
    answer = api.post("/v1/track", {"customer_id": c, "feature_id": "msg", "value": 4, "async": True}, 202)
    assert answer["code"] == "event_received" and answer["id"].startswith("evt_")
    assert api.balances(c)["msg"]["balance"] == 96


def test_numbers_of_answers_are_written_digit_by_digit(api: Api) -> None:
    c = api.customer()
    api.track(c, value=D("0.000001"))
    assert '"balance":99.999999,"usage":0.000001,' in api.raw("POST", "/v1/check", {"customer_id": c, "feature_id": "msg"}).text


# Sockets


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket, Path]]:
    """A TCP socket and a Unix socket to serve on, and the Unix one's path."""
    with memory_folder() as folder, socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        unix.bind(str(folder / "s"))
        yield tcp, unix, folder / "s"


def test_tcp_and_unix_sockets_answer_alike(api: Api, sockets: tuple[socket.socket, socket.socket, Path]) -> None:
    tcp, unix, path = sockets
    c = api.customer()
    body = {"customer_id": c, "feature_id": "msg"}

    async def calls() -> None:
        port = tcp.getsockname()[1]
        over_unix = httpx.AsyncHTTPTransport(uds=str(path))
        async with (
            served(api.app, api.state if api.way == "short" else {}, tcp, unix),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=AUTHORIZED) as one,
            httpx.AsyncClient(base_url="http://sidecar", headers=AUTHORIZED, transport=over_unix) as other,
        ):
            for number, client in enumerate((one, other), 1):
                answer = await client.post("/v1/track", json={**body, "value": 1})
                assert answer.status_code == 200 and answer.json()["code"] == "event_received"
                answer = await client.post(
                    "/v1/check", content=msgpack.packb(body), headers={"content-type": MSGPACK, "accept": MSGPACK}
                )
                assert msgpack.unpackb(answer.content)["balance"] == 100 - number
                assert (await client.post("/v1/check", content=b"{")).status_code == 400
                too_large = await client.post("/v1/check", content=b" " * ((1 << 20) + 1))
                assert too_large.status_code == 413
                assert (await client.post("/v1/check", json=body, headers={"authorization": ""})).status_code == 401

    api.run(calls())


def test_a_hundred_connections_at_once_are_exact(api: Api, sockets: tuple[socket.socket, socket.socket, Path]) -> None:
    tcp, unix, path = sockets
    c = api.customer()
    body = {"customer_id": c, "feature_id": "msg", "overage_behavior": "reject", "value": 2}

    async def calls() -> list[int]:
        limits = httpx.Limits(max_connections=100)
        port = tcp.getsockname()[1]
        over_unix = httpx.AsyncHTTPTransport(uds=str(path), limits=limits)
        async with (
            served(api.app, api.state if api.way == "short" else {}, tcp, unix),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=AUTHORIZED, limits=limits, timeout=30) as one,
            httpx.AsyncClient(base_url="http://sidecar", headers=AUTHORIZED, transport=over_unix, timeout=30) as other,
        ):
            answers = await asyncio.gather(*(client.post("/v1/track", json=body) for client in (one, other) * 50))
        return [answer.status_code for answer in answers]

    statuses = api.run(calls())
    assert (statuses.count(200), statuses.count(400)) == (50, 50)
    assert api.balances(c)["msg"]["balance"] == 0
