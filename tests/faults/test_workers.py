"""Any number of sync workers: a cursor moves once, whoever is faster, slower or killed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

import pytest

from ..run.harness import Sidecar, environment, wait_for
from . import tree
from .callers import Load

CUSTOMERS = [f"c{number}" for number in range(12)]
LOAD_S = 4.0
THIRD_LIVES_S = (0.3, 0.8)


@pytest.fixture(params=["sqlite", "postgres"])
def sidecar(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sidecar]:
    """A running sidecar, which has one worker, on each database."""
    url = None if request.param == "sqlite" else str(request.getfixturevalue("pg_url"))
    made = tree.sidecar_on(tmp_path, url)
    made.start()
    yield made
    made.destroy()


class Worker:
    """A `sidecar sync` of its own beside the sidecar."""

    def __init__(self, sidecar: Sidecar, name: str):
        self._sidecar = sidecar
        self.log = sidecar.data_dir.parent / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it carries."""
        began = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "sidecar", "sync"], cwd=self._sidecar.data_dir.parent,
                env=environment(self._sidecar.settings), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        wait_for("sync_started", lambda: "sync_started" in self.log.read_text()[began:], 20)

    def end(self, stop: bool) -> int:
        """SIGTERM or SIGKILL; the exit code."""
        assert self.process is not None
        self.process.terminate() if stop else self.process.kill()
        return self.process.wait(20)


def conflicts(text: str) -> int:
    """Batches in a log that lost the race for a cursor."""
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return sum(line["event"] == "cursor_conflict" for line in lines)


def test_two_workers_and_a_third_that_is_killed_carry_everything_once(sidecar: Sidecar) -> None:
    """P2, P9. The sidecar's worker, a second one, and a third killed with SIGKILL and started
    again, all under load: they take batches from each other, and SQL ends exact."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    draw = random.Random(seed)
    tree.set_up(sidecar, CUSTOMERS)
    second, third = Worker(sidecar, "second"), Worker(sidecar, "third")
    kills = 0
    try:
        second.start()
        load = Load(sidecar.port, CUSTOMERS, seed)
        load.start()
        began_at = time.monotonic()
        while time.monotonic() - began_at < LOAD_S or kills < 3:
            third.start()
            time.sleep(draw.uniform(*THIRD_LIVES_S))
            assert third.end(stop=False) == -9
            kills += 1
        load.stop()
        tree.wait_synced(sidecar)
        store = tree.open_store(sidecar)
        found = tree.read(store)
        store.close()
        acknowledged = tree.assert_calls_are_in_sql(found, load.tally.calls)
        tree.assert_exact(found, load.tally, CUSTOMERS)
        tree.assert_answers_agree(sidecar, found, CUSTOMERS)
        tree.audit(sidecar)
        assert second.end(stop=True) == 0, second.log.read_text()
    finally:
        for worker in (second, third):
            if worker.process is not None:
                worker.process.kill()
                worker.process.wait()
    logs = {"first": sidecar.output, "second": second.log.read_text(), "third": third.log.read_text()}
    seen = {name: conflicts(text) for name, text in logs.items()}
    print(f"{acknowledged} acknowledged, {kills} kills of the third worker, conflicts {seen}")
    assert seen["first"] > 0 and seen["second"] > 0, seen
    assert acknowledged > 500 and load.tally.unknown.total() == 0
