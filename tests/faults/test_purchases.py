"""P10: a purchase that SQL has decided reaches Redis, once, also when its request dies between."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Iterator

import pytest
from redis import Redis
from sqlalchemy import Connection, func, select

from sidecar.store import tables
from sidecar.store.db import Store

from ..run.harness import Sidecar, wait_for
from . import tree
from .callers import Client, Unanswered
from .inside import BOOST, GRANT_LIFETIME, GRANT_MONTH

START = GRANT_MONTH + GRANT_LIFETIME
KINDS: dict[str, tuple[str, ...]] = {
    "http worker": ("http",), "both workers": ("http", "sync"),
    "whole tree": ("parent", "watch", "http", "sync", "valkey"),
}


@pytest.fixture(params=["sqlite", "postgres"])
def sidecar(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sidecar]:
    """A running sidecar on each database."""
    url = None if request.param == "sqlite" else str(request.getfixturevalue("pg_url"))
    made = tree.sidecar_on(tmp_path, url)
    made.start()
    yield made
    for role in ("valkey", "sync"):
        tree.signal_all(made, role, signal.SIGCONT)
    made.destroy()


@pytest.fixture
def store(sidecar: Sidecar) -> Iterator[Store]:
    """The test's own connection to the sidecar's database."""
    opened = tree.open_store(sidecar)
    yield opened
    opened.close()


def decided(store: Store) -> int:
    """Steps that SQL has decided and Redis has not confirmed."""

    def count(conn: Connection) -> int:
        return int(conn.execute(select(func.count()).select_from(tables.outbox)).scalar_one())

    return store.read_sync(count)


def balance(sidecar: Sidecar) -> int:
    """The messages that a check shows."""
    status, answer = tree.ask(sidecar, "POST", "/v1/check", {"customer_id": "c0", "feature_id": "messages"})
    return int(answer["balance"]) if status == 200 else -1


def buy_and_be_cut_off(sidecar: Sidecar, store: Store, killed: tuple[str, ...]) -> None:
    """Valkey is frozen, so that the request has committed in SQL and waits; there it is killed."""
    outcomes: list[str] = []

    def buy() -> None:
        client = Client(sidecar.port)
        try:
            outcomes.append(str(client.send("POST", "/v1/attach", {"customer_id": "c0", "product_id": "boost"})))
        except Unanswered as problem:
            outcomes.append(problem.reason)
        client.close()

    wait_for("no step to be open", lambda: decided(store) == 0)
    tree.signal_all(sidecar, "valkey", signal.SIGSTOP)
    buyer = threading.Thread(target=buy)
    buyer.start()
    wait_for("the decision in SQL", lambda: decided(store) == 1, 1.5)
    assert tree.kill(sidecar, killed) == len(killed)
    buyer.join(5)
    # Where Valkey dies too, it may do so a moment before the worker, which then says what is so.
    [outcome] = outcomes
    assert outcome == "cut" or ("valkey" in killed and "outcome_unknown" in outcome), outcome


def test_a_purchase_cut_off_between_sql_and_redis_is_made_once(sidecar: Sidecar, store: Store) -> None:
    """P10. Whoever comes next brings the step to Redis, and nobody a second time; also when Redis
    is emptied before anyone came, and the load has to."""
    tree.set_up(sidecar, ["c0"])
    for bought, (what, killed) in enumerate(KINDS.items(), 1):
        assert balance(sidecar) == START + (bought - 1) * BOOST
        buy_and_be_cut_off(sidecar, store, killed)
        if "valkey" in killed:
            assert sidecar.process is not None
            sidecar.process.wait(10)
            sidecar.start()
        else:
            tree.signal_all(sidecar, "valkey", signal.SIGCONT)
        wanted = START + bought * BOOST
        took_s = wait_for("it to be spendable", lambda: sidecar.answers() and balance(sidecar) == wanted, 10)
        wait_for("the step to be confirmed", lambda: decided(store) == 0, 10)
        print(f"{what}: spendable {took_s:.1f} s after the kill")
    tree.pause_sync(sidecar, store)  # it has confirmed all steps: it is not the one who brings the next
    buy_and_be_cut_off(sidecar, store, ("http",))
    tree.signal_all(sidecar, "valkey", signal.SIGCONT)
    with Redis(unix_socket_path=(sidecar.data_dir / "valkey" / "socket").read_text().strip()) as redis:
        redis.flushall()
    wait_for("the HTTP worker", sidecar.answers, 15)
    wanted = START + (len(KINDS) + 1) * BOOST
    assert balance(sidecar) == wanted
    tree.signal_all(sidecar, "sync", signal.SIGCONT)
    time.sleep(1.5)  # for whoever might bring one again
    assert balance(sidecar) == wanted
    tree.wait_synced(sidecar)
    found = tree.read(store)
    assert found.boosts["c0"] == len(KINDS) + 1
    tree.assert_adds_up(found, ["c0"])
    tree.audit(sidecar)
