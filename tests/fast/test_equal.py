"""Both ways answer alike, byte for byte: two worlds with the same past get the same requests, one
with the short way and one without.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Callable, Iterator

import msgpack
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fast.raw import AUTHORIZATION, Answer, Client, connected, counted, parsed, request
from tests.http import KEY, PUBLIC_KEY, Api, memory_folder

PATHS = ["/v1/check", "/v1/entitled", "/v1/balances.check", "/v1/track", "/v1/events", "/v1/balances.track"]
ODD_PATHS = ["/v1/check/", "/v1/check?x=1", "/v1/%63heck", "//v1/check", "/v1/nothing", "*", "http://h/v1/check", "/v1/check#f"]
INCOMPLETE_AFTER_S = 2
"""A server that says nothing for so long waits for the rest of the request."""

DEFAULT_HEADERS = [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT"), (b"server", b"x")]

# Bodies as text: objects of (name, value) pairs, where a name may come twice and numbers are written in every manner

NUMBERS = st.one_of(
    st.integers(-(10**20), 10**20).map(str), st.integers(-5, 20).map(str), st.integers(-5, 20).map(str),
    st.sampled_from([
        "0", "-0", "1.0", "1.50", "0.25", "1e2", "1E+2", "-0.0", "0.1", "0.0001", "9007199254740991", "9007199254740992",
        "-9007199254740992", "9" * 40, "1" * 41, "1" * 5000, "00", "01", "1.", ".5", "5e-7", "1e60", "1e400", "+1", "0x1", "1_0",
        "NaN", "Infinity", "-Infinity",
    ]),
)
TEXTS = st.one_of(
    st.sampled_from(["c", "d", "new", "e1", "", "msg", "pool", "action", "fine", "flag", "seats", "month", "k", "l", "cap", "reject"]),
    st.text(max_size=6), st.sampled_from(["\0", "\x1f", "\x7f", "\u00e9", "\ud800", "\U0001f600", "x" * 255, "x" * 256, " c", "c\n"]),
)
STRINGS = st.tuples(TEXTS, st.booleans()).map(_text := lambda pair: json.dumps(pair[0], ensure_ascii=pair[1]))
ANYTHING = st.one_of(
    NUMBERS, STRINGS, st.sampled_from(["null", "true", "false", "[]", "{}", '{"a":1}', "[1,2]", "nul", '"', "'c'", '"\\v"', '"a\tb"', "[" * 2000])
)


def mostly(*sensible: str) -> st.SearchStrategy[str]:
    return st.integers(0, 6).flatmap(lambda n: ANYTHING if n == 0 else st.sampled_from([json.dumps(text) for text in sensible]))


FIELDS: dict[str, st.SearchStrategy[str]] = {
    "customer_id": mostly("c", "c", "d"), "feature_id": mostly("msg", "fine", "month", "action", "pool", "flag", "seats"),
    "value": NUMBERS, "required_balance": NUMBERS, "required_quantity": NUMBERS,
    "send_event": st.sampled_from(["true", "false", "null", "1"]), "with_preview": st.sampled_from(["false", "null", "true"]),
    "idempotency_key": mostly("k", "l", "m", ""), "entity_id": mostly("e1", "e2"), "event_name": mostly("both"),
    "properties": st.sampled_from(['{"a":1.5}', '{"value":3}', "{}", "null", "[]"]), "overage_behavior": mostly("cap", "reject", "overflow"),
    "async": st.sampled_from(["true", "false"]), "timestamp": NUMBERS, "product_id": mostly("base"),
    "customer_data": st.sampled_from(["{}", "null", '{"name":"x"}']), "entity_data": st.sampled_from(["{}", "null"]),
    "lock": st.sampled_from(["{}", "null", "true"]), "nobody_knows_it": ANYTHING, "cust\\u006fmer_id": mostly("c"),
}
USUAL = st.tuples(
    st.tuples(st.just("customer_id"), FIELDS["customer_id"]), st.tuples(st.just("feature_id"), FIELDS["feature_id"]),
)
OTHERS = st.sampled_from([*FIELDS, "value", "required_balance", "send_event", "idempotency_key"]).flatmap(
    lambda name: st.tuples(st.just(name), FIELDS[name])
)
PAIRS = st.one_of(
    st.tuples(USUAL, st.lists(OTHERS, max_size=2)).map(lambda both: [*both[0], *both[1]]),
    st.tuples(USUAL, st.lists(OTHERS, max_size=5)).map(lambda both: [*both[0], *both[1]]),
    st.lists(OTHERS, max_size=5),
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    kind = draw(st.integers(0, 19))
    if kind == 0:
        return draw(st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"null", b"[]", b'"c"', b"1", b" ", b"{", b"{}x", b"\x00"])))
    pairs = draw(PAIRS)
    if draw(st.booleans()):
        pairs = draw(st.permutations(pairs))
    space = draw(st.sampled_from(["", "", "", " ", "\n\t\r ", "\x0c"]))
    text = "{" + ",".join(f'{space}"{name}"{space}:{space}{value}{space}' for name, value in pairs) + "}"
    if kind == 1:
        return text.encode("utf-16", "surrogatepass")
    if kind == 2:
        return b"\xef\xbb\xbf" + text.encode("utf-8", "surrogatepass")
    if kind == 3:
        return (text + " " * draw(st.sampled_from([65_536 - len(text), 66_000, 1 << 20]))).encode("utf-8", "surrogatepass")
    return text.encode("utf-8", "surrogatepass")


@st.composite
def packed_bodies(draw: st.DrawFn) -> bytes:
    """The like in MessagePack, names twice among them."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.one_of(st.binary(max_size=40), ANYTHING.map(lambda text: text.encode("utf-8", "surrogatepass"))))
    pairs = draw(PAIRS)
    parts = [msgpack.Packer().pack_map_header(len(pairs))]
    for name, text in pairs:
        parts.append(msgpack.packb(json.loads(f'"{name}"') if draw(st.integers(0, 19)) else name.encode(), unicode_errors="surrogatepass"))
        try:
            parts.append(msgpack.packb(json.loads(text), unicode_errors="surrogatepass"))
        except (ValueError, OverflowError, RecursionError):
            parts.append(msgpack.packb(text, unicode_errors="surrogatepass"))
    return b"".join(parts) + draw(st.sampled_from([b"", b"", b"", b"\0"]))


VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12).map(str.encode)
HEADERS = st.lists(
    st.one_of(
        st.tuples(st.just(b"x-api-version"), st.sampled_from([b"1.2", b"2.0", b"2.1", b"2.3", b"1.1", b"beta", b"2025-05-05", b"bad", b"", b"9" * 30])),
        st.tuples(st.just(b"idempotency-key"), st.one_of(st.sampled_from([b"k", b"l", b"", b"x" * 256, b"\xe9", b"a\tb", b"a b"]), VALUES)),
        st.tuples(st.just(b"content-type"), st.sampled_from([
            b"application/json", b"application/json; charset=utf-8", b"application/json;x", b"APPLICATION/JSON", b"text/plain", b"",
            b"application/msgpack", b"application/x-msgpack", b"application/x-www-form-urlencoded", b"application/jsonx",
        ])),
        st.tuples(st.just(b"accept"), st.sampled_from([
            b"*/*", b"application/json", b"application/msgpack", b"application/x-msgpack;q=1", b"application/json, application/msgpack", b"",
        ])),
        st.tuples(st.just(b"authorization"), st.sampled_from([
            b"Bearer nobody", b"", b"Bearer am_sk_unknown", f"bearer {KEY}".encode(), f"Bearer {PUBLIC_KEY}".encode(), f"Bearer  {KEY}".encode(),
        ])),
        st.tuples(st.just(b"connection"), st.sampled_from([b"close", b"keep-alive", b"Close", b"upgrade", b"keep-alive, close"])),
        st.tuples(st.just(b"expect"), st.sampled_from([b"100-continue", b"100-Continue", b"nothing"])),
        st.tuples(st.just(b"upgrade"), st.sampled_from([b"websocket", b"h2c"])),
        st.tuples(st.sampled_from([b"content-encoding", b"cookie", b"x-anything", b"te"]), VALUES),
        st.tuples(st.just(b"transfer-encoding"), st.sampled_from([b"chunked", b"gzip", b"identity"])),
        st.tuples(st.just(b"content-length"), st.sampled_from([b"0", b"5", b"-1", b"+5", b"1e3", b"99999999"])),
        st.tuples(st.just(b"bad name"), VALUES),
    ),
    max_size=3,
)


PACKED = [(b"content-type", b"application/msgpack"), (b"accept", b"application/msgpack")]
PACKED_LINES = [name + b": " + value for name, value in PACKED]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request's bytes, nearly always of check or track."""
    odd = draw(st.integers(0, 9)) == 0
    method = draw(st.sampled_from(["GET", "PUT", "DELETE", "OPTIONS", "post"])) if odd and draw(st.booleans()) else "POST"
    path = draw(st.sampled_from(ODD_PATHS if odd else PATHS))
    http = "1.0" if draw(st.integers(0, 14)) == 0 else "1.1"
    headers = draw(HEADERS) if draw(st.booleans()) else []
    shape = draw(st.sampled_from([bytes.lower, bytes.title, bytes.upper]))
    data = draw(bodies())
    if draw(st.integers(0, 3)) == 0:
        data = draw(packed_bodies())
        headers = [*PACKED, *(header for header in headers if header[0] not in dict(PACKED) or draw(st.booleans()))]
    chunked = draw(st.integers(0, 9)) == 0
    lines = [f"{method} {path} HTTP/{http}".encode(), b"host: x"]
    if not any(name == b"authorization" for name, _ in headers) or draw(st.booleans()):
        lines.append(AUTHORIZATION)
    if chunked:
        lines.append(b"transfer-encoding: chunked")
        data = (b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + b"0\r\n\r\n"
    else:
        lines.append(b"content-length: %d" % len(data))
    lines += [shape(name) + b": " + value for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + data


class Worlds:
    """The world with the short way and the one without, and a connection to each."""

    def __init__(self, short: Api, plain: Api):
        self.both = (short, plain)
        self._stack = AsyncExitStack()
        self._clients: list[Client] = []

    def run(self, data: bytes) -> Answer | None:
        """The answer of both, on connections that go on as long as the server lets them; None if
        both ended the connection without one."""
        return self.both[0].run(self._exchanged(data))

    async def _exchanged(self, data: bytes) -> Answer | None:
        if not self._clients:
            self._clients = [await self._stack.enter_async_context(connected(api.socket_path)) for api in self.both]
        found = await asyncio.gather(*(self._answer(client, data) for client in self._clients))
        (short, short_ended), (plain, plain_ended) = found
        assert short == plain, f"{data!r}:\nshort {short}\nplain {plain}"
        if short_ended != plain_ended:  # on a busy machine one of them sees a bad rest of the request later
            await asyncio.sleep(1)
            short_ended, plain_ended = (
                ended or _has_more(client) for ended, client in zip((short_ended, plain_ended), self._clients)
            )
        assert short_ended == plain_ended, data
        if short_ended:
            await self.close()
        return short

    async def _answer(self, client: Client, data: bytes) -> tuple[Answer | None, bool]:
        client.writer.write(data)
        try:
            async with asyncio.timeout(INCOMPLETE_AFTER_S):
                answer = await client.answer()
        except TimeoutError:  # it waits for more of the request
            return None, True
        except (asyncio.IncompleteReadError, ConnectionError):
            return None, True
        ended = dict(answer.headers).get(b"connection") == b"close"
        if ended:
            assert await client.ended() or data.count(b"HTTP/1.") > 1
        else:
            await asyncio.sleep(0.002)  # what is left of the request may be another, bad one
            ended = _has_more(client)
        return answer, ended

    async def close(self) -> None:
        await self._stack.aclose()
        self._clients = []


def _has_more(client: Client) -> bool:
    """Whether the server ended the connection, or said something that was not waited for."""
    return client.reader.at_eof() or bool(client.reader._buffer)  # type: ignore[attr-defined]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the second world is kept."""
    with memory_folder() as found:
        yield found


@pytest.fixture
def worlds(folder: Path, make_api: Callable[..., Api], valkey: Any) -> Iterator[Worlds]:
    """Two worlds with one past: the second is a copy of the first, on another database of the same
    server."""
    short = make_api()
    short.feature("msg", event_names=["both"])
    short.feature("month", event_names=["both"])
    short.feature("fine", precision=4)
    short.feature("flag", "boolean")
    short.feature("seats", "continuous_use")
    short.feature("action")
    short.feature("pool", "credit_system", credit_schema=[{"metered_feature_id": "action", "credit_cost": 3}])
    short.plan(
        "base", {"feature_id": "msg", "included_usage": 300}, {"feature_id": "month", "included_usage": 90, "interval": "month"},
        {"feature_id": "fine", "included_usage": 50}, {"feature_id": "pool", "included_usage": 500}, {"feature_id": "flag"},
        {"feature_id": "seats", "included_usage": 5}, {"feature_id": "month", "included_usage": 5, "entity_feature_id": "seats"},
    )
    short.plan("more", {"feature_id": "msg", "included_usage": 7}, {"feature_id": "fine", "included_usage": 9}, is_add_on=True)
    for customer_id, plans in (("c", ["base", "more"]), ("d", ["base"])):
        short.post("/v1/customers", {"id": customer_id})
        for plan_id in plans:
            short.attach(customer_id, plan_id)
        short.entity(customer_id, "e1")
        for feature_id in ("msg", "month", "fine", "action", "seats", "flag"):
            short.check(customer_id, feature_id)
    short.sync()
    _copy(short, folder)
    plain = make_api(data_dir=folder, redis_url=f"{valkey.url}?db=1", fast_path=False)
    for api in (short, plain):
        assert api.server is not None
        api.server.server_state.default_headers = DEFAULT_HEADERS
    both = Worlds(short, plain)
    try:
        yield both
    finally:
        short.run(both.close())


def _copy(api: Api, folder: Path) -> None:
    """Puts a copy of both stores into `folder` and database 1."""
    source, target = sqlite3.connect(api.settings.data_dir / "sidecar.db"), sqlite3.connect(folder / "sidecar.db")
    source.backup(target)
    source.close()
    target.close()
    for key in api.redis.scan_iter(count=1000):
        assert api.redis.copy(key, key, destination_db=1)


C = b'{"customer_id":"c","feature_id":"msg","value":%b}'


def test_random_requests_are_answered_alike(worlds: Worlds) -> None:
    statuses: dict[int | None, int] = {}

    @settings(
        max_examples=400, deadline=None, database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(data=requests())
    @example(request(C % b'1,"value":2', "/v1/track"))
    @example(request(C % (b"1" * 41 + b',"value":2'), "/v1/track"))
    @example(request(C % b'1,"customer_id":null', "/v1/track"))
    @example(request(b'{"customer_id":"c\x7f","feature_id":"msg"}', "/v1/check"))
    @example(request(b'{"customer_id":"c","feature_id":"\xed\xa0\x80"}', "/v1/check"))
    @example(request(b"\x82\xabcustomer_id\xa1c\xaafeature_id\xa3\xed\xa0\x80", "/v1/check", *PACKED_LINES))
    @example(request(b'{"customer_id":"c","feature_id":"fine","required_balance":0.30001,"send_event":true}'))
    @example(request(C % b'1,"idempotency_key":"k"', "/v1/track", b"idempotency-key: k"))
    @example(request(C % b'1,"idempotency_key":"k"', "/v1/track", b"idempotency-key: l"))
    @example(request(C % b"1", "/v1/track", b"x-api-version: 2.1", b"x-api-version: 1.2"))
    @example(request(C % b"1", "/v1/track", b"expect: 100-continue"))
    @example(request(C % b"1", "/v1/track", http="1.0"))
    @example(request(C % b"1", "/v1/track", b"connection: close"))
    @example(request(C % b"1", "/v1/track", chunked=True))
    @example(request(b"", "/v1/track"))
    def run(data: bytes) -> None:
        answer = worlds.run(data)
        status = answer.status if answer else None
        statuses[status] = statuses.get(status, 0) + 1
        assert status is None or status < 500, (data, answer)
        if status is not None:
            worlds.run(data)  # its head is known by now, if it is one to remember

    with counted() as short, parsed() as read:
        run()
    made = sum(statuses.values())
    assert len(short) > made / 4, f"only {len(short)} of {made} went the short way"
    assert len(read) < 2 * made - 20, f"of {made} requests and their repeats, {len(read)} were parsed"
    assert {200, 400} <= set(statuses), statuses
    assert all(not api.differences() for api in worlds.both)


def test_the_common_calls_are_answered_alike_at_every_version(worlds: Worlds) -> None:
    """Also replays, conflicts, refusals of the script, and what creates a customer on the way."""
    seen = set()
    with counted() as short:
        for version in (b"1.2", b"2.0", b"2.1"):
            for verb in ("check", "track"):
                for feature in ("msg", "month", "fine", "action", "pool", "flag", "seats"):
                    for fields in (
                        {}, {"value": 3, "required_balance": 3}, {"value": 1.5, "required_balance": 10_000}, {"send_event": True},
                        {"entity_id": "e1"}, {"idempotency_key": feature, "send_event": True}, {"idempotency_key": feature, "value": 2},
                        {"value": 10**6, "overage_behavior": "reject"}, {"value": -1}, {"async": True}, {"entity_id": "nobody"},
                        {"value": 10**15}, {"customer_id": "new"}, {"customer_id": "newer", "customer_data": {"name": "x"}},
                    ):
                        body = {"customer_id": "c", "feature_id": feature, **fields}
                        for data, headers in ((body, []), (msgpack.packb(body), PACKED_LINES)):
                            answer = worlds.run(request(data, f"/v1/{verb}", b"x-api-version: " + version, *headers))
                            assert answer is not None
                            seen.add(answer.status)
    assert len(short) > 1000
    assert {200, 202, 400, 404, 409} <= seen, seen


def test_turned_off_nothing_goes_the_short_way(worlds: Worlds) -> None:
    data = request(C % b"1", "/v1/track")
    with counted() as short:
        worlds.run(data)
    assert len(short) == 1 and type(short[0].protocol).__name__ == "FastProtocol"
    plain = worlds.both[1].server
    assert plain is not None and not hasattr(plain.config.http_protocol_class, "_usual")
