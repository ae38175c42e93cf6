"""The whole application over HTTP for tests: real Valkey, real SQL, a test clock, and both ways in:
ASGI in memory, and uvicorn on a socket as the worker runs it, where check and track go the short way.
Every test runs once each way, but those marked `ways("asgi")`, which may then call neither.

One event loop per session; each test gets an empty Valkey, a database of its own and the app built
from settings. The loop runs only inside `Api` calls, so nothing happens behind a test's back. When a
test ends, whatever it did is carried into SQL and audited: no key without a TTL that is not on the
list of permanent ones, and SQL equal to Redis to the last unit.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import shutil
import socket
import sqlite3
import tempfile
import time
import uuid
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, AsyncIterator, Awaitable, Callable, Iterator, TypeVar

import httpx
import msgpack
import pytest
import redis
import uvicorn
import uvloop
from sqlalchemy import select

from sidecar import app as application
from sidecar.api import fast
from sidecar.api.check_track import CHECK_PATHS, TRACK_PATHS
from sidecar.api.endpoint import Context
from sidecar.engine import keys
from sidecar.run.http_worker import KEEP_ALIVE_S
from sidecar.settings import Settings
from sidecar.store import partitions, tables
from sync.audit import audit as compare_stores
from sync import carry
from tests.wire import BASE_URL, Client, InMemory, OverSocket

KEY = "am_sk_test_http"
OTHER_KEY = "am_sk_42424242"
PUBLIC_KEY = "am_pk_test_http"
PARTITIONS = 2
MEMORY = Path("/dev/shm")
MSGPACK = "application/msgpack"
HOUR_MS, DAY_MS = 3_600_000, 86_400_000

SHORT_PATHS = frozenset(CHECK_PATHS + TRACK_PATHS)
WAYS = ("asgi", "short")
"""Starlette in memory; uvicorn on a Unix socket, with the short way."""

short_calls: list[str] = []
"""The paths of checks and tracks that were called; tests/conftest.py empties it."""

T = TypeVar("T")


@dataclass
class Api:
    """A caller of one app. Numbers come back as int or Decimal, never as floats."""

    runner: asyncio.Runner
    app: Any
    settings: Settings
    redis: redis.Redis
    client: Client
    way: str
    state: dict[str, Any]
    """What the app's lifespan gives to the server."""
    server: Served | None = None
    socket_path: str = ""
    """Where `server` listens."""

    may_differ: bool = False
    """Set by a test that spoils the stores on purpose: no audit at its end."""
    sql: sqlite3.Connection | None = None
    audited_at: tuple[bytes, int] | None = None
    """The stamp of what was audited last."""

    @property
    def ctx(self) -> Context:
        """The app's inside, to look at what no answer shows."""
        return self.app.state.context

    def run(self, awaitable: Awaitable[T]) -> T:
        """Runs the loop until it is done; not by the runner, which would set a signal's handler each time."""
        return self.runner.get_loop().run_until_complete(awaitable)

    # -- HTTP ------------------------------------------------------------------------------------

    async def send(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None,
        content: bytes | None = None, client: Client | httpx.AsyncClient | None = None,
    ) -> httpx.Response:
        """One request; `body` goes as JSON, Decimals digit by digit, `content` as it is."""
        given = {"content-type": "application/json"}
        if self.way != "asgi" and headers:  # a socket carries no blanks around a header's value
            headers = {name: value.strip() for name, value in headers.items()}
        if content is None and body is not None:
            content = to_json(body)
        if method == "POST" and path in SHORT_PATHS:
            short_calls.append(path)
        return await (client or self.client).request(method, path, content=content, headers={**given, **(headers or {})})

    def raw(self, method: str, path: str, body: Any = None, **kw: Any) -> httpx.Response:
        """`send`, now."""
        return self.run(self.send(method, path, body, **kw))

    def call(self, method: str, path: str, body: Any = None, status: int = 200, **kw: Any) -> Any:
        """The decoded answer; fails the test if its status is another one."""
        answer = self.raw(method, path, body, **kw)
        assert answer.status_code == status, f"{method} {path} {body}: {answer.status_code} {answer.text}"
        return decoded(answer)

    def post(self, path: str, body: Any = None, status: int = 200, **kw: Any) -> Any:
        return self.call("POST", path, body, status, **kw)

    def get(self, path: str, status: int = 200, **kw: Any) -> Any:
        return self.call("GET", path, None, status, **kw)

    def together(self, *calls: tuple[Any, ...]) -> list[httpx.Response]:
        """Makes calls, each (method, path, body), all at once."""

        async def all_of_them() -> list[httpx.Response]:
            return await asyncio.gather(*(self.send(*call) for call in calls))

        return self.run(all_of_them())

    def refused(self, path: str, body: Any, status: int, code: str, **kw: Any) -> str:
        """Makes a POST that must be refused so and change nothing in either store; its message."""
        with self.nothing_changes():
            answer = self.post(path, body, status, **kw)
        assert answer["code"] == code, answer
        assert isinstance(answer["message"], str) and answer["message"]
        return str(answer["message"])

    @contextlib.contextmanager
    def nothing_changes(self) -> Iterator[None]:
        """Fails the test if either store is changed within."""
        before = self.stamp()
        yield
        assert self.stamp() == before, "something changed in (Redis, SQL)"

    def streaming(self) -> httpx.AsyncClient:
        """A client that can send a body bit by bit, for one request."""
        transport = httpx.ASGITransport(self.app) if self.way == "asgi" else httpx.AsyncHTTPTransport(verify=False, uds=self.socket_path)
        headers = {"authorization": f"Bearer {self.settings.secret_keys[0]}"}
        return httpx.AsyncClient(transport=transport, base_url=BASE_URL, headers=headers, timeout=60, trust_env=False)

    @contextlib.contextmanager
    def in_memory(self) -> Iterator[None]:
        """Within, the app is called in memory, past its server and the short way."""
        way, client = self.way, self.client
        self.way, self.client = "asgi", InMemory(self.app, {"authorization": f"Bearer {self.settings.secret_keys[0]}"})
        try:
            yield
        finally:
            self.way, self.client = way, client

    # -- the catalog and customers ---------------------------------------------------------------

    def feature(self, feature_id: str, kind: str = "single_use", **fields: Any) -> str:
        """Creates a feature; its id."""
        self.post("/v1/features", {"id": feature_id, "name": feature_id.capitalize(), "type": kind, **fields})
        return feature_id

    def plan(self, plan_id: str, *items: dict[str, Any], **fields: Any) -> str:
        """Creates a plan of items; its id."""
        self.post("/v1/products", {"id": plan_id, "name": plan_id.capitalize(), "items": list(items), **fields})
        return plan_id

    def customer(self, *plans: str, **fields: Any) -> str:
        """A new customer with the default plans and then these; its id."""
        customer_id = f"c_{uuid.uuid4().hex[:10]}"
        self.post("/v1/customers", {"id": customer_id, **fields})
        for plan_id in plans:
            self.attach(customer_id, plan_id)
        return customer_id

    def attach(self, customer_id: str, plan_id: str, quantities: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        """Attaches a plan and pays for it if that is asked."""
        options = [{"feature_id": f, "quantity": q} for f, q in (quantities or {}).items()]
        body = {"customer_id": customer_id, "product_id": plan_id, **({"options": options} if options else {}), **fields}
        answer = self.post("/v1/attach", body)
        if answer["checkout_url"]:
            self.pay(answer["checkout_url"])
        return answer

    def pay(self, url: str) -> None:
        """What the buyer's browser does: no key."""
        answer = self.run(InMemory(self.app).request("POST", url + "/pay"))
        assert answer.status_code in (200, 303), answer.text

    def entity(self, customer_id: str, entity_id: str, feature_id: str = "seats", status: int = 200) -> Any:
        """Opens an entity."""
        return self.post(f"/v1/customers/{customer_id}/entities", {"id": entity_id, "feature_id": feature_id}, status)

    # -- check and track -------------------------------------------------------------------------

    def track(self, customer_id: str, feature_id: str = "msg", value: Any = None, status: int = 200, **fields: Any) -> Any:
        value = {} if value is None else {"value": value}
        return self.post("/v1/track", {"customer_id": customer_id, "feature_id": feature_id, **value, **fields}, status)

    def check(self, customer_id: str, feature_id: str = "msg", required: Any = None, status: int = 200, **fields: Any) -> Any:
        required = {} if required is None else {"required_balance": required}
        return self.post("/v1/check", {"customer_id": customer_id, "feature_id": feature_id, **required, **fields}, status)

    def balances(self, customer_id: str) -> dict[str, Any]:
        """The customer's features as GET shows them."""
        features: dict[str, Any] = self.get(f"/v1/customers/{customer_id}")["features"]
        return features

    # -- time and what lies beneath --------------------------------------------------------------

    def advance(self, ms: int) -> int:
        """Moves the test clock forward; the time then."""
        now_ms: int = self.post("/v1/test_clock", {"advance_ms": ms})["now_ms"]
        return now_ms

    def advance_to(self, now_ms: int) -> None:
        self.post("/v1/test_clock", {"now_ms": now_ms})

    def sync(self) -> None:
        """Carries the whole log into SQL, as the worker does."""
        self.run(catch_up(self))

    def differences(self) -> list[str]:
        """What the audit finds."""
        return [str(found) for found in self.run(compare_stores(self.ctx.engine, self.ctx.store)).differences]

    def events(self, customer_id: str) -> list[dict[str, Any]]:
        """The customer's events in SQL, oldest first."""
        self.sync()
        e = tables.events
        query = select(e).where(e.c.customer_id == customer_id).order_by(e.c.gen, e.c.seq, e.c.line)
        return [dict(row) for row in self.ctx.store.read_sync(lambda conn: conn.execute(query).mappings().all())]

    def stamp(self) -> tuple[bytes, int]:
        """What changes whenever something does: Redis' digest of all it holds, and the number of
        commits that SQLite's other connections have made."""
        if self.sql is None:
            self.sql = sqlite3.connect(self.settings.data_dir / "sidecar.db")
        return self.redis.execute_command("DEBUG", "DIGEST"), self.sql.execute("PRAGMA data_version").fetchone()[0]


_DECODER = json.JSONDecoder(parse_float=Decimal)


def to_json(body: Any) -> bytes:
    """JSON with Decimals digit by digit."""
    marks: list[str] = []

    def mark(value: Any) -> str:
        marks.append(str(value))
        return f"\0{len(marks) - 1}\0"

    text = json.dumps(body, default=mark)
    for number, digits in enumerate(marks):
        text = text.replace(f'"\\u0000{number}\\u0000"', digits)
    return text.encode()


def decoded(answer: httpx.Response) -> Any:
    """The value of an answer's body."""
    if answer.headers["content-type"] == MSGPACK:
        return msgpack.unpackb(answer.content)
    return _DECODER.decode(answer.text)


async def catch_up(api: Api) -> None:
    carry.PAUSE_S = 0.0  # nobody else writes
    carrier, stop = carry.Carrier(api.ctx.store, api.ctx.engine), asyncio.Event()
    for _ in range(200):
        await carrier.turn(stop, 1)
        assert not carrier.stopped, f"sync stopped: {carrier.stopped}"
        cursors = await api.ctx.store.read(partitions.cursors)
        with api.redis.pipeline(transaction=False) as pipe:
            for p in cursors:
                pipe.exists(keys.log(p))
                pipe.xinfo_stream(keys.log(p))
            found = pipe.execute(raise_on_error=False)
        if all(not there or b"%d-%d" % cursors[p] == log["last-generated-id"] for p, there, log in zip(cursors, found[::2], found[1::2])):
            return
    raise AssertionError("sync does not end")


def undeclared_keys(client: redis.Redis) -> list[bytes]:
    """Keys that have no TTL and are not on the list of permanent ones."""
    found = list(client.scan_iter(count=1000))
    with client.pipeline(transaction=False) as pipe:
        for key in found:
            pipe.pttl(key)
        ttls = pipe.execute()
    return [
        key for key, ttl in zip(found, ttls)
        if ttl == -1 and not key.partition(b"}")[2].decode("latin-1").startswith(keys.PERMANENT)
    ]


@pytest.fixture(scope="session")
def loop_runner() -> Iterator[asyncio.Runner]:
    """The session's event loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@contextlib.contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder on a file system in memory where there is one: a commit waits for the disk, which
    would cost a test of many small writes most of its time."""
    with tempfile.TemporaryDirectory(prefix="sc-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@functools.cache
def plain_client(url: str) -> redis.Redis:
    """A client of a server to look into it with; making one takes longer than a call."""
    return redis.Redis.from_url(url)


class Served(uvicorn.Server):
    """uvicorn as the worker sets it up, for an app that has been started: `up`, then `down`."""

    def __init__(self, app: Any, state: dict[str, Any], **config: Any):
        assert fast.usable()
        http = fast.protocol(fast.STATE in state)
        values = dict(
            lifespan="off", ws="none", log_config=None, access_log=False, server_header=False, proxy_headers=False, http=http,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        super().__init__(uvicorn.Config(app, **{**values, **config}))
        self._state = state

    async def up(self, *sockets: socket.socket) -> None:
        """Serves on sockets that are bound. Nothing ticks: the answers have no date."""
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        self.lifespan.state = self._state
        await self.startup(list(sockets))

    async def down(self) -> None:
        """Ends it and the connections, which no call is under way on."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        while self.server_state.connections or self.server_state.tasks:
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def served(app: Any, state: dict[str, Any], *sockets: socket.socket, **config: Any) -> AsyncIterator[Served]:
    """`Served`, for a while."""
    server = Served(app, state, **config)
    await server.up(*sockets)
    try:
        yield server
    finally:
        await server.down()


@contextlib.contextmanager
def apps(runner: asyncio.Runner, valkey: Any, migrated: Path, way: str = WAYS[0]) -> Iterator[Callable[..., Api]]:
    """Starts apps on one Valkey and one database of their own: `make(**settings)`."""
    started: list[tuple[Any, Api]] = []
    with memory_folder() as folder:
        shutil.copy(migrated, folder / "sidecar.db")

        def make(**overrides: Any) -> Api:
            values: dict[str, Any] = dict(
                data_dir=folder, redis_url=valkey.url, partitions=PARTITIONS, secret_keys=(KEY, OTHER_KEY, PUBLIC_KEY),
                test_clock=True,
            )
            settings = Settings(**{**values, **overrides})
            app = application.build(settings)
            lifespan = app.router.lifespan_context(app)
            state = runner.run(lifespan.__aenter__())
            headers = {"authorization": f"Bearer {settings.secret_keys[0]}"}
            client: Client = InMemory(app, headers)
            server, path = None, str(folder / f"s{len(started)}")
            if way == "short":
                listening = socket.socket(socket.AF_UNIX)
                listening.bind(path)
                server = Served(app, state)
                runner.run(server.up(listening))
                client = OverSocket(path, headers)
            stored = plain_client(str(settings.redis_url))
            api = Api(runner, app, settings, stored, client, way, state, server, path)
            started.append((lifespan, api))
            api.run(api.ctx.engine.open_partitions(range(settings.partitions)))
            return api

        try:
            yield make
            for _, api in started:
                audit(api)
        finally:
            for lifespan, api in reversed(started):
                runner.run(api.client.aclose())
                if api.server is not None:
                    runner.run(api.server.down())
                runner.run(lifespan.__aexit__(None, None, None))
                if api.sql is not None:
                    api.sql.close()


@pytest.fixture(params=WAYS)
def make_api(
    request: pytest.FixtureRequest, loop_runner: asyncio.Runner, valkey: Any, _sqlite_migrated: Path
) -> Iterator[Callable[..., Api]]:
    """Starts apps: `make_api(**settings)`. All are audited when the test ends."""
    with apps(loop_runner, valkey, _sqlite_migrated, request.param) as make:
        yield make


@pytest.fixture
def api(make_api: Callable[..., Api]) -> Api:
    """A caller of an app with nothing in it yet."""
    return make_api()


@pytest.fixture(scope="module", params=WAYS)
def module_apps(
    request: pytest.FixtureRequest, loop_runner: asyncio.Runner, valkey_server: Any, _sqlite_migrated: Path
) -> Iterator[Callable[..., Api]]:
    """As `make_api`, for all tests of a module, which make customers of their own. Not to be mixed
    with `api` in one module: that one empties the server."""
    valkey_server.command("FLUSHALL")
    with apps(loop_runner, valkey_server, _sqlite_migrated, request.param) as make:
        yield make


@pytest.fixture(scope="module")
def module_api(module_apps: Callable[..., Api]) -> Api:
    """One app for all tests of a module. A test audits it by calling `audit`."""
    return module_apps()


def audit(api: Api) -> None:
    """Fails the test unless SQL, once caught up, equals Redis, and every key may be there."""
    if api.audited_at == api.stamp():
        return
    assert undeclared_keys(api.redis) == [], "keys without a TTL that are not permanent ones"
    if api.may_differ:
        return
    api.sync()
    assert api.differences() == []
    api.audited_at = api.stamp()


def real_now_ms() -> int:
    return time.time_ns() // 1_000_000
