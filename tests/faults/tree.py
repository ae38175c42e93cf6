"""A real `sidecar serve` on either database, killed in every way, and what its stores say in the
end."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import OperationalError

from sidecar.store import tables
from sidecar.store.db import Store

from ..run.harness import Sidecar, command, wait_for
from .callers import Call, Client, Load, Tally
from .inside import BOOST, FEATURES, GRANT_LIFETIME, GRANT_MONTH, KEY, PARTITIONS, PRECISION, PRODUCTS, TIGHT

SYNCED_S = 30.0
CREDITS_PER_BASIC = PRECISION // 100



def sidecar_on(folder: Path, database_url: str | None, **settings: str) -> Sidecar:
    """A sidecar that keeps what it acknowledges, with SQLite in its folder if no URL is given."""
    found = {
        "SIDECAR_DURABILITY": "always", "SIDECAR_SECRET_KEYS": KEY, "SIDECAR_PARTITIONS": str(PARTITIONS),
        "SIDECAR_LOG_FORMAT": "json", **settings,
    }
    if database_url is not None:
        found["SIDECAR_DATABASE_URL"] = database_url
    return Sidecar(folder / "data", settings=found)


def open_store(sidecar: Sidecar) -> Store:
    """A connection of the test's own to the sidecar's database."""
    return Store(sidecar.settings.get("SIDECAR_DATABASE_URL") or str(sidecar.data_dir / "sidecar.db"))


def set_up(sidecar: Sidecar, customer_ids: Iterable[str]) -> None:
    """The catalog, and customers with its default plan."""
    client = Client(sidecar.port)
    bodies = [("/v1/features", f) for f in FEATURES] + [("/v1/products", p) for p in PRODUCTS]
    for path, body in [*bodies, *(("/v1/customers", {"id": name}) for name in customer_ids)]:
        status, answer, _ = client.send("POST", path, body)
        assert status == 200, (path, body, answer)
    client.close()


def ask(sidecar: Sidecar, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """One call outside the load: status and answer."""
    client = Client(sidecar.port)
    status, answer, _ = client.send(method, path, body)
    client.close()
    return status, answer


def wait_synced(sidecar: Sidecar) -> float:
    """Until SQL has the whole log, and Redis what SQL has decided: what a process that died had not
    brought, the worker brings; the seconds that took."""

    def done() -> bool:
        try:
            sync = sidecar.get("/readyz")["sync"]
        except OSError:
            return False
        assert isinstance(sync, dict)
        assert sync["rejected"] == 0, sync
        return sync["behind_entries"] == 0 and not store.read_sync(_pending)

    store = open_store(sidecar)
    try:
        return wait_for("SQL to have the log", done, SYNCED_S)
    finally:
        store.close()


def _pending(conn: Connection) -> int:
    c = tables.customers.c
    return int(conn.execute(select(func.count()).where(c.structure_version > c.applied_version, c.deleted_at.is_(None))).scalar_one())


def audit(sidecar: Sidecar) -> None:
    """`sidecar audit` beside the running sidecar finds nothing."""
    done = command("audit", cwd=sidecar.data_dir.parent, settings=sidecar.settings)
    assert done.returncode == 0, f"audit: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"


@dataclass
class Found:
    """What SQL has."""

    events: dict[str, list[tuple[str, str, int, str]]]
    """By idempotency key: (customer, feature, applied, event id)."""
    events_of: Counter[tuple[str, str]]
    """Scaled units applied, by customer and feature."""
    ledger: dict[tuple[str, str], int]
    """Sum of deltas of kind `use`, by customer and feature."""
    balances: dict[tuple[str, str], int]
    """Sum of live buckets."""
    all_lines: dict[tuple[str, str], int]
    """Sum of all deltas."""
    boosts: Counter[str]


def read(store: Store) -> Found:
    """Everything that the checks below need, in one snapshot."""
    return store.read_sync(_read)


def _read(conn: Connection) -> Found:
    e, g, b, c, cp = (
        tables.events.c, tables.ledger.c, tables.buckets.c, tables.customers.c, tables.customer_plans.c,
    )
    names = {cid: name for cid, name in conn.execute(select(c.cid, c.id))}
    events: dict[str, list[tuple[str, str, int, str]]] = {}
    events_of: Counter[tuple[str, str]] = Counter()
    rows = select(e.idempotency_key, e.customer_id, e.feature_id, e.applied, e.p, e.gen, e.seq)
    for key, customer_id, feature_id, applied, p, gen, seq in conn.execute(rows):
        events.setdefault(key, []).append((customer_id, feature_id, applied, f"evt_{p}_{gen}_{seq}"))
        events_of[customer_id, feature_id] += applied

    def sums(column: Any, *group: Any, where: Any) -> dict[tuple[str, str], int]:
        query = select(*group, func.sum(column)).where(where).group_by(*group)
        return {(names[cid], feature_id): int(total) for cid, feature_id, total in conn.execute(query)}

    boosts = select(cp.cid, func.count()).where(cp.plan_id == "boost").group_by(cp.cid)
    return Found(
        events, events_of,
        sums(g.delta, g.cid, g.feature_id, where=g.kind == "use"),
        sums(b.balance, b.cid, b.feature_id, where=b.removed_at.is_(None)),
        sums(g.delta, g.cid, g.feature_id, where=g.feature_id.is_not(None)),
        Counter({names[cid]: count for cid, count in conn.execute(boosts)}),
    )


def assert_calls_are_in_sql(found: Found, calls: Iterable[Call]) -> int:
    """Every acknowledged call is in SQL exactly once, as it was acknowledged, and no denied call
    is; how many there are."""
    acknowledged = 0
    for call in calls:
        rows = found.events.get(call.key, [])
        if call.denied:
            assert rows == [], f"{call} was denied, SQL has {rows}"
            continue
        acknowledged += 1
        expected = (call.customer_id, call.feature_id, call.value * PRECISION, call.event_id)
        assert rows == [expected], f"{call}: SQL has {rows}"
    return acknowledged


def assert_exact(found: Found, tally: Tally, customer_ids: Iterable[str]) -> None:
    """SQL adds up: nothing but the calls, in events, ledger and balances alike."""
    assert set(found.events) == {call.key for call in tally.calls if not call.denied}
    assert_adds_up(found, customer_ids)
    for name in customer_ids:
        assert tally.boosts_made[name] <= found.boosts[name] <= tally.boosts_tried[name], name


def assert_adds_up(found: Found, customer_ids: Iterable[str]) -> None:
    """P1 and P9 by SQL alone: grants less what was used is what is left, and never below zero."""
    for name in customer_ids:
        used = {
            "messages": found.events_of[name, "messages"],
            "tight": found.events_of[name, "tight"],
            "credits": found.events_of[name, "basic"] * CREDITS_PER_BASIC // PRECISION,
        }
        granted = {
            "messages": (GRANT_MONTH + GRANT_LIFETIME + found.boosts[name] * BOOST) * PRECISION,
            "tight": TIGHT * PRECISION, "credits": GRANT_LIFETIME * PRECISION,
        }
        for feature_id, units in used.items():
            at = (name, feature_id)
            assert found.ledger.get(at, 0) == -units, at
            assert found.balances[at] == found.all_lines[at] == granted[feature_id] - units, at
            assert found.balances[at] >= 0, at


def assert_answers_agree(sidecar: Sidecar, found: Found, customer_ids: Iterable[str]) -> None:
    """What a check shows is what SQL has."""
    for name in customer_ids:
        for feature_id in ("messages", "tight"):
            status, answer = ask(sidecar, "POST", "/v1/check", {"customer_id": name, "feature_id": feature_id})
            assert status == 200
            assert round(answer["balance"] * PRECISION) == found.balances[name, feature_id], (name, answer)


def kill(sidecar: Sidecar, roles: Iterable[str]) -> int:
    """SIGKILL to all live processes of the roles; how many there were."""
    targets = [process for process in sidecar.processes() if process.role in roles]
    for process in targets:
        process.kill()
    return len(targets)


def signal_all(sidecar: Sidecar, role: str, number: int) -> None:
    """A signal to every process of a role."""
    for process in sidecar.processes(role):
        os.kill(process.pid, number)


def pause_sync(sidecar: Sidecar, store: Store) -> None:
    """Stops the sync worker where it stands, but not inside a transaction: others need SQL."""

    def writable() -> bool:
        try:
            if store.is_sqlite:
                with contextlib.closing(sqlite3.connect(sidecar.data_dir / "sidecar.db", timeout=0.05)) as conn:
                    conn.execute("BEGIN IMMEDIATE")
            else:
                with store.engine.connect() as conn:
                    conn.exec_driver_sql("SELECT 1 FROM partitions FOR UPDATE NOWAIT")
        except (sqlite3.OperationalError, OperationalError):
            return False
        return True

    def paused() -> bool:
        signal_all(sidecar, "sync", signal.SIGSTOP)
        if not writable():
            signal_all(sidecar, "sync", signal.SIGCONT)
            time.sleep(0.02)
            return False
        return True

    wait_for("the sync worker to stand between two transactions", paused, 10)


def load_for(load: Load, seconds: float) -> None:
    """Lets the callers go on."""
    before = len(load.tally.calls)
    time.sleep(seconds)
    assert len(load.tally.calls) > before, "the callers stand still"
