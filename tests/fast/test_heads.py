"""A head that was seen before is not parsed again, and that changes no answer.

Guarantees: what is remembered is bounded; only a head that is the same to the last byte, of a whole
request that stands alone, is taken from memory; everything else is the parser's.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from typing import Any, AsyncIterator, Iterator

import pytest

from sidecar.api import heads
from sidecar.api.auth import Keys
from tests.fast.raw import AUTHORIZATION, Answer, Client, check, connected, counted, parsed, request
from tests.http import KEY, OTHER_KEY, PUBLIC_KEY, Api, served

ONE = request(check(7))
"""Bodies of the same length have the same head."""


def known_to(api: Api) -> dict[bytes, heads.Head]:
    """The heads that an app remembers."""
    found: dict[bytes, heads.Head] = api.state["fast"].heads.known
    return found


@contextlib.asynccontextmanager
async def knowing(api: Api, data: bytes = ONE) -> AsyncIterator[Client]:
    """A connection whose app knows the head of that request."""
    async with connected(api.socket_path) as client:
        await client.call(data)
        yield client


async def answers(client: Client, data: bytes) -> list[Answer]:
    """What comes for it until the connection ends, or says nothing more."""
    client.writer.write(data)
    found = []
    try:
        async with asyncio.timeout(0.5):
            while True:
                found.append(await client.answer())
    except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
        return found


def test_a_head_seen_before_is_not_parsed(api: Api) -> None:
    async def exchange() -> None:
        async with connected(api.socket_path) as client, connected(api.socket_path) as other:
            for number in range(1, 10):
                for each in (client, other):
                    assert (await each.call(request(check(number)))).json["required_balance"] == number

    with parsed() as read, counted() as short:
        api.run(exchange())
    assert len(short) == 18 and len(read) == 1


def test_split_at_every_byte_it_is_answered_alike(api: Api) -> None:
    async def exchange() -> None:
        async with knowing(api) as client:
            whole = await client.call(ONE)
            for cut in range(1, len(ONE)):
                client.writer.write(ONE[:cut])
                await asyncio.sleep(0.001)
                assert await client.call(ONE[cut:]) == whole, cut
                assert await client.call(ONE) == whole, cut

    with parsed() as read:
        api.run(exchange())
    assert len(read) == len(ONE), "the first, and those that came in two parts"


@pytest.mark.parametrize("seed", range(3))
def test_requests_in_chunks_of_any_size_are_answered_in_order(api: Api, seed: int) -> None:
    """Known heads and new ones, short and ordinary, alone in their chunk and not, answered and not."""
    chosen = random.Random(seed)
    kinds = [chosen.choice(("known", "known", "known", "asgi", "chunked", "keyed")) for _ in range(400)]
    made = []
    for number, kind in enumerate(kinds, 100):
        headers = [b"idempotency-key: k%d" % number] if kind == "keyed" else []
        made.append(request(check(number), "/v1/check?x" if kind == "asgi" else "/v1/check", *headers, chunked=kind == "chunked"))

    async def exchange() -> None:
        async with connected(api.socket_path) as client:
            waiting: list[int] = []
            for number, data in enumerate(made, 100):
                cut = chosen.choice((0, 0, 0, chosen.randrange(len(data))))
                for part in filter(None, (data[:cut], data[cut:])):
                    client.writer.write(part)
                    await asyncio.sleep(0.0005 if chosen.random() < 0.5 else 0)
                waiting.append(number)
                while waiting and chosen.random() < 0.5:
                    assert (await client.answer()).json["required_balance"] == waiting.pop(0)
            for expected in waiting:
                assert (await client.answer()).json["required_balance"] == expected

    with parsed() as read:
        api.run(exchange())
    assert len(read) < len(made)


def test_one_that_comes_before_the_answer_waits_its_turn(api: Api) -> None:
    async def exchange() -> None:
        async with knowing(api) as client:
            api.redis.execute_command("CLIENT", "PAUSE", "300", "ALL")
            for number in (1, 2, 3):
                client.writer.write(request(check(number)))
                await asyncio.sleep(0.03)
            assert [(await client.answer()).json["required_balance"] for _ in range(3)] == [1, 2, 3]

    with counted() as short:
        api.run(exchange())
    assert len(short) == 4


def test_for_a_client_that_does_not_read_a_known_head_starts_nothing(api: Api) -> None:
    async def exchange() -> None:
        async with knowing(api) as client:
            (protocol,) = api.server.server_state.connections  # type: ignore[union-attr]
            protocol.pause_writing()
            client.writer.write(request(check(3)))
            await asyncio.sleep(0.1)
            assert len(short) == 1
            protocol.resume_writing()
            assert (await client.answer()).json["required_balance"] == 3

    with counted() as short:
        api.run(exchange())
    assert len(short) == 2


@pytest.mark.parametrize("behind", [b"garbage", b"\r\n", b"\0", ONE, ONE[:50], b"GET / HTTP/1.1\r\n\r\n"], ids=repr)
def test_what_stands_behind_it_in_the_chunk_is_the_parsers(api: Api, behind: bytes) -> None:
    async def exchange() -> None:
        async with connected(api.socket_path) as fresh:
            first = await answers(fresh, ONE + behind)
        assert first
        async with knowing(api) as client:
            assert await answers(client, ONE + behind) == first

    api.run(exchange())


@pytest.mark.parametrize(
    "key", ["am_sk_test_nobody", KEY[:-1] + "x", KEY + "x", OTHER_KEY, PUBLIC_KEY, " " + KEY, ""],
    ids=["unknown", "another byte", "longer", "another key", "publishable", "a blank more", "none"],
)
def test_another_key_is_never_let_in_by_a_known_head(api: Api, key: str) -> None:
    """The answer is what a server gives that knows no head; the key's own environment among it."""
    data = request({"customer_id": "c", "feature_id": "nothing"}).replace(AUTHORIZATION, f"authorization: Bearer {key}".encode())

    async def exchange() -> list[Answer]:
        found = []
        for path in ("/v1/check", "/v1/check?the-ordinary-way"):
            async with knowing(api, request({"customer_id": "c", "feature_id": "nothing"})) as client:
                for _ in range(3):
                    found.append(await client.call(data.replace(b"/v1/check", path.encode())))
        return found

    found = api.run(exchange())
    assert len({(each.status, each.body) for each in found}) == 1
    assert found[0].status == (404 if key in (OTHER_KEY, PUBLIC_KEY, " " + KEY) else 401)
    if key != OTHER_KEY:
        assert all(AUTHORIZATION + b"\r\n" in head for head in known_to(api))


@pytest.mark.parametrize(
    "data",
    [
        request(check(7), "/v1/check", b"connection: close"), request(check(7), http="1.0"), request(check(7), "/v1/check", b"idempotency-key: k"),
        request(check(7), chunked=True), request(check(7), "/v1/check?x"), request(b"", "/v1/features/msg", method="GET"),
        request(check(7), "/v1/check", b"accept: application/msgpack"), request(check(7), "/v1/check", b"x-much: " + b"x" * 1000),
        request(check(7)).replace(KEY.encode(), b"am_sk_unknown"), request(check(7), "/v1/check", b"connection: upgrade", b"upgrade: h2c"),
    ],
    ids=["close", "1.0", "keyed", "chunked", "query", "get", "msgpack", "long", "unknown key", "upgrade"],
)
def test_what_is_not_quite_usual_is_not_remembered(api: Api, data: bytes) -> None:
    async def exchange() -> None:
        found = []
        for _ in range(3):
            async with connected(api.socket_path) as client:
                found.append(await client.call(data))
                if dict(found[-1].headers).get(b"connection") == b"close":
                    assert await client.ended()
        assert len({each.body for each in found}) == 1

    known_to(api).clear()
    api.run(exchange())
    assert not known_to(api)


def test_a_request_in_two_chunks_is_not_remembered_and_neither_are_two_in_one(api: Api) -> None:
    async def exchange() -> None:
        async with connected(api.socket_path) as client:
            client.writer.write(ONE[:30])
            await asyncio.sleep(0.01)
            await client.call(ONE[30:])
            await client.call(ONE + ONE)
            await client.answer()

    known_to(api).clear()
    api.run(exchange())
    assert not known_to(api)


def test_where_lines_end_otherwise_nothing_is_remembered() -> None:
    """A parser that took a bare line feed for an end of line would see another body than is cut out."""
    memory = heads.Heads(Keys((KEY,)))
    head = heads.Head("check", (1, 2), "sandbox", None, 2)
    for text in (b"POST / HTTP/1.1\nx: y\r\n\r\n", b"\nPOST / HTTP/1.1\r\n\r\n"):
        memory.remember(text + b"{}", len(text), head, b"{}")
    assert not memory.known
    text = b"POST / HTTP/1.1\r\nx: y\r\n\r\n"
    memory.remember(text + b"{} ", len(text), head, b"{}")
    assert not memory.known, "something stands behind the body"
    memory.remember(text + b"{}", len(text), head, b"{}")
    assert memory.known == {text: head}


def test_a_client_whose_heads_all_differ_takes_a_bounded_amount_of_memory(api: Api) -> None:
    async def exchange() -> None:
        async with connected(api.socket_path) as client:
            for number in range(heads.HEADS_MAX + 50):
                await client.call(request(check(7), "/v1/check", b"x-trace: %d" % number))
                assert len(known_to(api)) <= heads.HEADS_MAX
            await client.call(ONE)
            await client.call(ONE)

    known_to(api).clear()
    with parsed() as read:
        api.run(exchange())
    assert len(read) == heads.HEADS_MAX + 51, "what comes twice is known again"


def test_apps_in_one_process_do_not_share_what_they_know(make_api: Any) -> None:
    """Their keys differ."""
    first, second = make_api(), make_api(secret_keys=("am_sk_test_other",))

    async def exchange() -> list[int]:
        async with connected(first.socket_path) as one, connected(second.socket_path) as two:
            return [(await each.call(ONE)).status for each in (one, two, one, two)]

    assert first.run(exchange()) == [404, 401, 404, 401]


@pytest.fixture
def idle_after_1_s(api: Api) -> Iterator[str]:
    """Where an app listens that ends connections after a second of nothing."""
    path = api.socket_path + "k"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    server = served(api.app, api.state, listening, timeout_keep_alive=1)
    api.run(server.__aenter__())
    yield path
    api.run(server.__aexit__(None, None, None))


def test_a_connection_in_use_is_not_idle(api: Api, idle_after_1_s: str) -> None:
    """Calls of both ways, each less than the idle time after the last: no timer of an earlier one ends it."""

    async def exchange() -> None:
        async with connected(idle_after_1_s) as client:
            for number in range(8):
                await asyncio.sleep(0.4)
                path = "/v1/check" if number % 3 else "/v1/check?x"
                assert (await client.call(request(check(number), path))).json["required_balance"] == number
            assert await client.ended()

    api.run(exchange())


def test_a_connection_with_half_a_request_is_not_idle(api: Api, idle_after_1_s: str) -> None:
    async def exchange() -> None:
        async with connected(idle_after_1_s) as client, connected(idle_after_1_s) as silent:
            await client.call(ONE)
            client.writer.write(ONE[:-10])
            await asyncio.sleep(2.5)
            assert (await client.call(ONE[-10:])).status == 200
            assert (await silent.call(ONE)).status == 200, "nothing was asked yet, so nothing is over"

    api.run(exchange())
