"""Whatever is killed with SIGKILL, what is left ends by itself within 2 s (or is started again), and
the same folder and port serve again with nothing cleaned by hand."""

from __future__ import annotations

import os
import signal
from typing import Callable

import pytest

from .harness import Sidecar, wait_for

LEFT_ENDS_S = 2.0
KINDS: dict[str, Callable[[Sidecar], list[str]]] = {
    "parent": lambda sidecar: ["parent"],
    "parent and watcher": lambda sidecar: ["parent", "watch"],
    "every Python process": lambda sidecar: ["parent", "watch", "http", "sync"],
    "parent and valkey": lambda sidecar: ["parent", "valkey"],
    "whole tree": lambda sidecar: ["parent", "watch", "http", "sync", "valkey"],
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


@pytest.mark.parametrize("kind", KINDS)
def test_the_rest_ends_and_the_same_folder_and_port_serve_again(sidecar: Sidecar, kind: str) -> None:
    sidecar.start()
    key = sidecar.key
    kill(sidecar, KINDS[kind](sidecar))
    took_s = wait_for("the rest to end", lambda: not sidecar.processes(), 10)
    assert took_s < LEFT_ENDS_S, f"what was left took {took_s:.2f} s"
    sidecar.start()
    assert sidecar.answers()
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


@pytest.mark.parametrize("role", ["http", "sync", "watch", "valkey"])
def test_a_dead_child_is_started_again(sidecar: Sidecar, role: str) -> None:
    sidecar.start()
    old = sidecar.one(role)
    valkey = sidecar.one("valkey")
    old.kill()
    wait_for(f"another {role}", lambda: [p for p in sidecar.processes(role) if p.pid != old.pid])
    if role in ("watch", "valkey"):
        wait_for("another valkey", lambda: [p for p in sidecar.processes("valkey") if p.pid != valkey.pid])
        wait_for("the old valkey's end", lambda: valkey not in sidecar.processes("valkey"), LEFT_ENDS_S)
    wait_for("/readyz", sidecar.answers)
    assert len(sidecar.processes()) == 5, sidecar.processes()
    assert sidecar.stop() == 0
    assert sidecar.processes() == []


def test_killed_again_and_again_it_still_comes_back(sidecar: Sidecar) -> None:
    """Backoff must not give up on children that are killed, each kind twice."""
    sidecar.start()
    for role in ["http", "valkey", "sync", "watch"] * 2:
        old = sidecar.one(role)
        old.kill()
        wait_for(f"another {role}", lambda: [p for p in sidecar.processes(role) if p.pid != old.pid])
        wait_for("five processes", lambda: len(sidecar.processes()) == 5)
    wait_for("/readyz", sidecar.answers)


@pytest.mark.parametrize("role", ["http", "sync", "watch", "valkey"])
def test_a_stuck_child_ends_too(sidecar: Sidecar, role: str) -> None:
    """One that is stopped cannot read its pipe. The kernel wakes and hangs up a stopped group whose
    parent ends; each child has a group of its own, so this reaches it."""
    sidecar.start()
    os.kill(sidecar.one(role).pid, signal.SIGSTOP)
    kill(sidecar, ["parent"])
    assert wait_for("the rest to end", lambda: not sidecar.processes()) < LEFT_ENDS_S


def test_a_child_that_keeps_failing_ends_the_sidecar(sidecar: Sidecar) -> None:
    """Valkey with a configuration it refuses; about half a minute of growing pauses."""
    sidecar.start()
    (sidecar.data_dir / "valkey" / "valkey.conf").write_text("nonsense\n")
    sidecar.one("valkey").kill()
    assert sidecar.process is not None
    assert sidecar.process.wait(60) == 1
    assert "the valkey process keeps ending" in sidecar.output
    assert sidecar.processes() == []
    sidecar.start()
    assert sidecar.answers()
