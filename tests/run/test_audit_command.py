"""`sidecar audit` beside a running sidecar and alone: 0 no differences, 1 some, 2 could not compare."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from .harness import REPOSITORY, Sidecar, command, environment, wait_for

EXAMPLE = str(REPOSITORY / "docs" / "examples" / "chat.py")


@pytest.fixture
def used(sidecar: Sidecar) -> Sidecar:
    """A running sidecar with a customer who has used 3 messages, and SQL that has heard of it."""
    sidecar.start("--catalog", EXAMPLE)
    for path, body in [
        ("customers", {"id": "ada"}),
        ("track", {"customer_id": "ada", "feature_id": "messages", "value": 3, "idempotency_key": "k1"}),
    ]:
        call(sidecar, path, body)
    wait_for("the event in SQL", lambda: rows(sidecar, "SELECT * FROM events"))
    return sidecar


def call(sidecar: Sidecar, path: str, body: dict[str, object]) -> dict[str, object]:
    headers = {"Authorization": f"Bearer {sidecar.key}", "Content-Type": "application/json"}
    with urlopen(Request(f"{sidecar.url}/v1/{path}", json.dumps(body).encode(), headers), timeout=10) as answer:
        return dict(json.load(answer))


def rows(sidecar: Sidecar, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(sidecar.data_dir / "sidecar.db", timeout=10)
    try:
        with connection:
            return connection.execute(query).fetchall()
    finally:
        connection.close()


def audit(sidecar: Sidecar, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return command("audit", "--data-dir", str(sidecar.data_dir), cwd=tmp_path)


def test_beside_and_alone_nothing_differs(used: Sidecar, tmp_path: Path) -> None:
    beside = audit(used, tmp_path)
    assert beside.returncode == 0, beside.stderr + beside.stdout
    assert beside.stdout.startswith("0 differences; compared 1 customers") and "1 idempotency keys" in beside.stdout
    used.stop()
    alone = audit(used, tmp_path)
    assert (alone.returncode, alone.stdout) == (0, beside.stdout), alone.stderr
    assert used.processes() == []
    used.start()
    assert call(used, "check", {"customer_id": "ada", "feature_id": "messages"})["balance"] == 7


def test_one_scaled_unit_is_named(used: Sidecar, tmp_path: Path) -> None:
    """Planted in SQL: the bucket then differs from Redis and from its own ledger."""
    rows(used, "UPDATE buckets SET balance = balance + 1 WHERE feature_id = 'messages'")
    for _ in range(2):  # beside, then alone
        done = audit(used, tmp_path)
        assert done.returncode == 1, done.stderr + done.stdout
        assert "ada" in done.stdout and "bucket" in done.stdout and "ledger" in done.stdout
        assert not done.stdout.startswith("0 differences")
        if used.processes():
            used.stop()


def test_beside_a_moved_test_clock(sidecar: Sidecar, tmp_path: Path) -> None:
    """The audit knows the stores' time without being told of the clock: SQL has forgotten a key that
    Redis, on the machine's time, still has."""
    sidecar.settings["SIDECAR_TEST_CLOCK"] = "1"
    sidecar.start("--catalog", EXAMPLE)
    call(sidecar, "track", {"customer_id": "ada", "feature_id": "messages", "value": 3, "idempotency_key": "k1"})
    wait_for("the key in SQL", lambda: rows(sidecar, "SELECT * FROM idempotency"))
    call(sidecar, "test_clock", {"advance_ms": 40 * 86_400_000})
    wait_for("its end", lambda: not rows(sidecar, "SELECT * FROM idempotency"), 20)
    done = audit(sidecar, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_cannot_be_compared_is_2(sidecar: Sidecar, tmp_path: Path) -> None:
    nothing = audit(sidecar, tmp_path)
    assert nothing.returncode == 2 and "there is no database in" in nothing.stderr
    assert not sidecar.data_dir.exists()
    wrong = command("audit", cwd=tmp_path, settings={"SIDECAR_REDIS_ULR": "x"})
    assert wrong.returncode == 2 and "did you mean SIDECAR_REDIS_URL" in wrong.stderr


def test_another_partition_count_cannot_be_compared(used: Sidecar, tmp_path: Path) -> None:
    settings = {"SIDECAR_PARTITIONS": "8", "SIDECAR_DATA_DIR": str(used.data_dir)}
    done = command("audit", cwd=tmp_path, settings=settings)
    assert done.returncode == 2 and "set it to 256" in done.stderr and "Traceback" not in done.stderr
    used.stop()
    used.settings["SIDECAR_PARTITIONS"] = "8"
    refused = command("serve", cwd=tmp_path, settings=used.settings)
    assert refused.returncode == 1 and "set it to 256" in refused.stderr
    assert used.processes() == []


def test_unreachable_stores_cannot_be_compared(used: Sidecar, tmp_path: Path) -> None:
    for name, url in [
        ("SIDECAR_REDIS_URL", "redis://:hunter2@127.0.0.1:1"),
        ("SIDECAR_DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:1/d"),
    ]:
        done = command("audit", cwd=tmp_path, settings={"SIDECAR_DATA_DIR": str(used.data_dir), name: url})
        assert done.returncode == 2, (name, done.stderr)
        assert "hunter2" not in done.stderr + done.stdout and "Traceback" not in done.stderr


def test_a_second_sync_worker_beside_a_running_sidecar(used: Sidecar, tmp_path: Path) -> None:
    """`sidecar sync` on the folder of a running sidecar; Ctrl-C ends it."""
    log = tmp_path / "sync.log"
    with open(log, "wb") as stderr:
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", "sidecar", "sync", "--data-dir", str(used.data_dir)],
            cwd=tmp_path, env=environment({}), stdin=subprocess.DEVNULL, stderr=stderr,
        )
    try:
        wait_for("its start", lambda: "sync_started" in log.read_text(), 20)
        used.one("sync").kill()
        for number in range(20):
            call(used, "track", {"customer_id": "ada", "feature_id": "notifications", "value": number + 1})
        wait_for("the events in SQL", lambda: rows(used, "SELECT count(*) FROM events") == [(21,)])
        worker.send_signal(signal.SIGINT)
        assert worker.wait(10) == 0, log.read_text()
    finally:
        worker.kill()
        worker.wait()
    assert audit(used, tmp_path).returncode == 0
