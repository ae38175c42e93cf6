"""Whatever is killed with SIGKILL, what is left ends by itself within 2 s (or is started again), and
the same folder and port serve again with nothing cleaned by hand."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from .harness import Sidecar, wait_for

LEFT_ENDS_S = 2.0
POLL_S = 0.02
KINDS = {
    "parent": ["parent"],
    "parent and watcher": ["parent", "watch"],
    "every Python process": ["parent", "watch", "http", "sync"],
    "parent and valkey": ["parent", "valkey"],
    "whole tree": ["parent", "watch", "http", "sync", "valkey"],
}


def kill(sidecar: Sidecar, roles: list[str]) -> None:
    """SIGKILL to every process of the roles, as close together as can be."""
    targets = [process for process in sidecar.processes() if process.role in roles]
    assert {process.role for process in targets} == set(roles)
    for process in targets:
        process.kill()
    if "parent" in roles:
        assert sidecar.process is not None
        sidecar.process.wait(5)


def seconds_until_gone(sidecar: Sidecar) -> float:
    """How long the rest takes to end, without the time for which the machine, busy with other tests,
    ran this process late: it ran theirs as late."""
    began_at = time.monotonic()
    late_s = 0.0
    while sidecar.processes():
        assert time.monotonic() - began_at < 15, sidecar.processes()
        before = time.monotonic()
        time.sleep(POLL_S)
        late_s += time.monotonic() - before - POLL_S
    return time.monotonic() - began_at - late_s


def test_the_rest_ends_and_the_same_folder_and_port_serve_again(sidecar: Sidecar) -> None:
    """Each kind of kill in turn, on one folder and port."""
    sidecar.start()
    key = sidecar.key
    for kind, roles in KINDS.items():
        kill(sidecar, roles)
        took_s = seconds_until_gone(sidecar)
        assert took_s < LEFT_ENDS_S, f"{kind}: what was left took {took_s:.2f} s"
        sidecar.start()
        assert sidecar.answers(), kind
        assert sidecar.key == key


def test_serve_waits_for_what_a_killed_parent_left(sidecar: Sidecar) -> None:
    """At once after the kill, while orphans still end."""
    sidecar.start()
    kill(sidecar, ["parent"])
    sidecar.start()
    assert sidecar.answers()
    assert len(sidecar.processes("valkey")) == 1


def test_a_long_path_leaves_no_private_folder_behind(sidecar: Sidecar) -> None:
    """The socket of a folder too deep for one lives elsewhere; a kill must not leave it there."""
    deep = sidecar.data_dir / ("d" * 60) / ("e" * 60)
    other = Sidecar(deep)
    try:
        other.start()
        first = (deep / "valkey" / "socket").read_text().strip()
        assert len(first) < 100 and os.stat(os.path.dirname(first)).st_mode & 0o77 == 0
        kill(other, ["parent", "watch", "http", "sync", "valkey"])
        other.start()
        second = (deep / "valkey" / "socket").read_text().strip()
        assert second != first and not os.path.exists(os.path.dirname(first))
        assert other.stop() == 0
        assert not os.path.exists(os.path.dirname(second))
    finally:
        other.destroy()


def test_a_dead_child_is_started_again(sidecar: Sidecar) -> None:
    """Each kind twice: backoff must not give up on children that are killed."""
    sidecar.start()
    for role in ["http", "valkey", "sync", "watch"] * 2:
        old = sidecar.one(role)
        valkey = sidecar.one("valkey")
        old.kill()
        wait_for(f"another {role}", lambda: [p for p in sidecar.processes(role) if p.pid != old.pid])
        if role in ("watch", "valkey"):
            wait_for("another valkey", lambda: [p for p in sidecar.processes("valkey") if p.pid != valkey.pid])
            wait_for("the old valkey's end", lambda: valkey not in sidecar.processes("valkey"), LEFT_ENDS_S)
        wait_for("five processes", lambda: len(sidecar.processes()) == 5)
    wait_for("/readyz", sidecar.answers)
    assert sidecar.stop() == 0
    assert sidecar.processes() == []


@pytest.mark.parametrize("role", ["http", "sync", "watch", "valkey"])
def test_a_stuck_child_ends_too(sidecar: Sidecar, role: str) -> None:
    """One that is stopped cannot read its pipe. The kernel wakes and hangs up a stopped group whose
    parent ends; each child has a group of its own, so this reaches it."""
    sidecar.start()
    os.kill(sidecar.one(role).pid, signal.SIGSTOP)
    kill(sidecar, ["parent"])
    assert seconds_until_gone(sidecar) < LEFT_ENDS_S


def test_a_child_that_still_loads_ends_too(sidecar: Sidecar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading takes seconds on a busy machine; here it does not end at all."""
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "sqlalchemy.py").write_text(
        f"import os, time\nopen({str(slow)!r} + f'/{{os.getpid()}}.loading', 'w').close()\ntime.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(slow))
    sidecar.launch()
    wait_for("the parent and the preparation", lambda: len(list(slow.glob("*.loading"))) == 2, 40)
    kill(sidecar, ["parent"])
    assert seconds_until_gone(sidecar) < LEFT_ENDS_S


def test_a_child_that_keeps_failing_ends_the_sidecar(sidecar: Sidecar) -> None:
    """Valkey with a configuration it refuses, with shorter pauses than the half minute they take."""
    sidecar.launch(command=[
        sys.executable, "-P", "-c", "import sidecar.run.child as child, sidecar.cli as cli\n"
        "child.BACKOFF_FIRST_S = child.BACKOFF_MAX_S = 0.05\ncli.main()", "serve",
    ])
    sidecar.wait_until_started()
    (sidecar.data_dir / "valkey" / "valkey.conf").write_text("nonsense\n")
    sidecar.one("valkey").kill()
    assert sidecar.process is not None
    assert sidecar.process.wait(60) == 1
    assert "the valkey process keeps ending" in sidecar.output
    assert sidecar.processes() == []
    sidecar.start()
    assert sidecar.answers()
