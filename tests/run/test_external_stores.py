"""Stores of the user's own: Debian's Redis 7 with a password, a replica, PostgreSQL; and what is said
while one is missing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from .harness import REPOSITORY, Sidecar, command, free_port, wait_for

EXAMPLE = str(REPOSITORY / "docs" / "examples" / "chat.py")
PASSWORD, IN_URL = "p@s:s/w", "p%40s%3As%2Fw"


class Redis:
    """One redis-server with an append-only file and a password; start it again after `kill`."""

    def __init__(self, folder: Path, *options: str):
        self.port = free_port()
        self._options = options
        self._folder = folder
        folder.mkdir()
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", "",
                "--appendonly", "yes", "--appendfsync", "always", "--requirepass", PASSWORD, "--masterauth", PASSWORD,
                "--logfile", str(self._folder / "log"), "--repl-diskless-sync-delay", "0", *self._options,
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Redis]:
    """Debian's Redis. `.ci/run` installs it."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on this machine")
    made = Redis(tmp_path / "primary")
    yield made
    made.kill()


@pytest.fixture
def beside(sidecar: Sidecar, primary: Redis) -> Sidecar:
    """A sidecar on it, not started."""
    sidecar.settings |= {
        "SIDECAR_REDIS_URL": f"redis://:{IN_URL}@127.0.0.1:{primary.port}/0", "SIDECAR_SECRET_KEYS": "am_sk_1",
        "SIDECAR_PARTITIONS": "8", "SIDECAR_DURABILITY": "always",
    }
    return sidecar


def call(sidecar: Sidecar, path: str, body: dict[str, object]) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": "Bearer am_sk_1", "Content-Type": "application/json"}
    try:
        with urlopen(Request(f"{sidecar.url}/v1/{path}", json.dumps(body).encode(), headers), timeout=20) as answer:
            return answer.status, json.load(answer)
    except HTTPError as refusal:
        return refusal.code, json.load(refusal)


def balance(sidecar: Sidecar, feature_id: str = "messages") -> object:
    return call(sidecar, "check", {"customer_id": "ada", "feature_id": feature_id})[1].get("balance")


def track(sidecar: Sidecar, value: int, key: str) -> int:
    return call(sidecar, "track", {
        "customer_id": "ada", "feature_id": "messages", "value": value, "idempotency_key": key,
    })[0]


def test_debians_redis_and_postgresql(beside: Sidecar, primary: Redis, pg_migrated_url: str, tmp_path: Path) -> None:
    """Every script runs there; killed and started again, Redis has its balances, and the audit agrees."""
    beside.settings["SIDECAR_DATABASE_URL"] = pg_migrated_url
    beside.start("--catalog", EXAMPLE)
    assert PASSWORD not in beside.output and IN_URL not in beside.output
    assert balance(beside) == 10
    assert track(beside, 5, "k1") == track(beside, 5, "k1") == 200
    call(beside, "track", {"customer_id": "ada", "feature_id": "basic_messages", "value": 2})
    assert (balance(beside), balance(beside, "usd_credits")) == (5, 4.98)
    wait_for("sync", lambda: beside.get("/readyz")["sync"]["behind_entries"] == 0)  # type: ignore[index]
    primary.kill()
    status, refusal = call(beside, "check", {"customer_id": "ada", "feature_id": "messages"})
    assert (status, refusal["code"]) == (503, "unavailable")
    assert command("audit", cwd=tmp_path, settings=beside.settings).returncode == 2
    primary.start()
    wait_for("/readyz", beside.answers)
    assert (balance(beside), balance(beside, "usd_credits")) == (5, 4.98)
    assert track(beside, 1, "k2") == 200
    assert beside.stop() == 0 and beside.processes() == []
    done = command("audit", cwd=tmp_path, settings=beside.settings)
    assert done.returncode == 0 and "1 customers in SQL" in done.stdout, done.stdout + done.stderr


def test_a_replica_confirms_each_answer(beside: Sidecar, primary: Redis, tmp_path: Path) -> None:
    """`SIDECAR_DURABILITY=replica`: an answer is in the replica, and without one nothing is answered
    as done; what was repeated with its key is counted once."""
    replica = Redis(tmp_path / "replica", "--replicaof", f"127.0.0.1 {primary.port}")
    try:
        beside.settings |= {"SIDECAR_DURABILITY": "replica", "SIDECAR_REDIS_TIMEOUT_MS": "1000"}
        beside.start("--catalog", EXAMPLE)
        assert balance(beside) == 10 and track(beside, 3, "k1") == 200
        replica.kill()
        assert track(beside, 2, "k2") == 504
        replica.start()
        deadline = time.monotonic() + 15
        while track(beside, 2, "k2") != 200:
            assert time.monotonic() < deadline
        assert balance(beside) == 5
    finally:
        replica.kill()


def test_a_missing_redis_is_named_at_the_start(sidecar: Sidecar) -> None:
    """It listens and says what it waits for, in words and without the password."""
    sidecar.settings |= {"SIDECAR_REDIS_URL": "redis://:hunter2@127.0.0.1:1", "SIDECAR_SECRET_KEYS": "am_sk_1",
                         "SIDECAR_REDIS_TIMEOUT_MS": "100"}
    sidecar.launch(command=[
        sys.executable, "-P", "-c", "import sidecar.run.supervisor as supervisor, sidecar.cli as cli\n"
        "supervisor.READY_S = 2\ncli.main()", "serve",
    ])
    sidecar.wait_until_started()
    assert "waiting for Redis: Redis does not answer" in sidecar.output, sidecar.output
    assert "hunter2" not in sidecar.output
    assert sidecar.get("/livez") == {"status": "alive"} and not sidecar.answers()
    assert sidecar.stop() == 0
