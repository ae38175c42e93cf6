"""Starts the floors and peers, and says where they answer."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Iterator, Sequence

import redis

from .. import calls
from ..processes import free_port, running, wait_for_http
from ..valkeys import embedded, socket_of
from .install import Missing, bun

HERE = Path(__file__).parent
PLENTY = 10**12
IN_FLIGHT_S = 0.5
"""How long what a generator left in flight may still come in."""
TITLES = {
    "bare": "F1: bare Starlette",
    "plain": "F3: Starlette + redis-py",
    "limits_moving": "F3: limits, moving window",
    "limits_fixed": "F3: limits, fixed window",
    "bun": "F4: hono + ioredis on Bun",
}
"""Every floor and peer, by the name that `--floors` takes."""


@dataclass(frozen=True)
class Contestant:
    """A running server: its address, and the processes that answer."""

    name: str
    address: str
    pids: Sequence[int]


@dataclass
class Peers:
    """What runs, what is missing and why, and the Valkey that those who count share."""

    contestants: list[Contestant]
    missing: dict[str, str]
    client: redis.Redis

    def reset(self) -> None:
        """Gives every customer new buckets and forgets what was counted, so that no window works on
        what the ones before left."""
        time.sleep(IN_FLIGHT_S)
        self.client.flushdb()
        pipe = self.client.pipeline(transaction=False)
        for number in range(calls.CUSTOMERS):
            pipe.hset(f"c:{calls.customer(number)}", mapping={"a": PLENTY, "b": PLENTY})
        pipe.execute()


@contextlib.contextmanager
def peers(names: Sequence[str], answers: dict[str, str]) -> Iterator[Peers]:
    """Runs those floors until the block ends; `answers` are the texts that the bare one gives, by path."""
    with embedded() as client, contextlib.ExitStack() as stack:
        for name in ("track", "check"):
            client.script_load((HERE / f"{name}.lua").read_text())
        found = Peers([], {}, client)
        found.reset()
        for name in names:
            try:
                found.contestants.append(stack.enter_context(_started(name, socket_of(client), answers)))
            except Missing as reason:
                found.missing[name] = str(reason)
        yield found


@contextlib.contextmanager
def bare(answers: dict[str, str]) -> Iterator[Contestant]:
    """F1 alone."""
    with _started("bare", "", answers) as found:
        yield found


@contextlib.contextmanager
def _started(name: str, socket: str, answers: dict[str, str]) -> Iterator[Contestant]:
    port = free_port()
    command, stdin = _command(name, port, socket), subprocess.DEVNULL
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(running(command, stdin=subprocess.PIPE if name == "bare" else stdin))
        if process.stdin is not None:
            process.stdin.write(json.dumps(answers).encode())
            process.stdin.close()
        wait_for_http(f"http://127.0.0.1:{port}/v1/check", process, body=calls.compact(calls.body("check", 0)))
        yield Contestant(name, f"127.0.0.1:{port}", [process.pid])


def _command(name: str, port: int, socket: str) -> list[str]:
    python = [sys.executable, "-m"]
    if name == "bare":
        return [*python, "loadtests.floors.bare", str(port)]
    if name == "plain":
        return [*python, "loadtests.floors.plain", str(port), socket]
    if name == "bun":
        executable, packages = bun()
        for file in ("peer.js", "track.lua", "check.lua"):  # beside node_modules, where Bun looks for them
            shutil.copy(HERE / file, packages)
        return [str(executable), str(packages / "peer.js"), str(port), socket]
    if find_spec("limits") is None:
        raise Missing("the package limits is not installed (pip install -e '.[bench]')")
    return [*python, "loadtests.floors.limited", str(port), socket, name.removeprefix("limits_")]
