"""What calls of scripts cost Redis: the server's own processor time a call, and what a client in C gets."""

from __future__ import annotations

import shutil
import socket
import subprocess
from typing import Any, NamedTuple, Sequence

import hiredis
import redis

from sidecar.engine import scripts

from .valkeys import socket_of

AT_ONCE = 100
"""Calls in one write."""
CONNECTIONS = 16
REFUSALS = frozenset(code.encode() for script in (scripts.TRACK, scripts.CHECK) for code in script.codes)
RANDOM = b"__rand_int__"
"""What redis-benchmark replaces by a number of its own in every call."""

Command = tuple[Any, ...]


class Cost(NamedTuple):
    """What a call took, in microseconds: of the processor time of the server's main thread, reading and
    answering included; and in the script alone, by Redis' own count."""

    cpu_us: float
    script_us: float


def cost(client: redis.Redis, commands: Sequence[Command]) -> Cost:
    """The cost of each of these calls of scripts, sent many at once. Raises RuntimeError if one is not
    answered OK."""
    some = [commands[at : at + AT_ONCE] for at in range(0, len(commands), AT_ONCE)]
    batches = [(b"".join(hiredis.pack_command(command) for command in batch), len(batch)) for batch in some]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(socket_of(client))
        client.config_resetstat()
        before_s = _main_thread_s(client)
        answers = [answer for batch, count in batches for answer in _answers(sock, batch, count)]
        took_s = _main_thread_s(client) - before_s
        script_us = float(client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])
    require_done(answers)
    return Cost(took_s / len(commands) * 1e6, script_us)


def require_done(answers: Sequence[Any]) -> None:
    """Raises RuntimeError where a script has refused, or failed."""
    for answer in answers:
        if isinstance(answer, Exception) or (isinstance(answer, list) and answer[0] in REFUSALS):
            raise RuntimeError(f"not done: {answer}")


def _answers(sock: socket.socket, batch: bytes, count: int) -> list[Any]:
    sock.sendall(batch)
    reader, found = hiredis.Reader(), list[Any]()
    while len(found) < count:
        data = sock.recv(1 << 20)
        if not data:
            raise RuntimeError("the server closed the connection")
        reader.feed(data)
        while (answer := reader.gets()) is not False:
            found.append(answer)
    return found


def _main_thread_s(client: redis.Redis) -> float:
    info = client.info("cpu")
    return float(info["used_cpu_user_main_thread"]) + float(info["used_cpu_sys_main_thread"])


def benchmark_program() -> str | None:
    """redis-benchmark or valkey-benchmark, if there is one."""
    return shutil.which("valkey-benchmark") or shutil.which("redis-benchmark")


def calls_per_s(client: redis.Redis, command: Command, count: int, at_once: int) -> float:
    """What the client in C gets, over 16 connections, with so many calls under way on each."""
    program = benchmark_program()
    assert program is not None
    words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
    options = ["-s", socket_of(client), "-n", str(count), "-c", str(CONNECTIONS), "-P", str(at_once), "-r", "1000000000", "--csv"]
    done = subprocess.run([program, *options, *words], capture_output=True, stdin=subprocess.DEVNULL, timeout=300)
    if done.returncode != 0 or not done.stdout.startswith(b'"test","rps"'):
        raise RuntimeError(f"{program}: {done.stdout!r} {done.stderr!r}")
    # A line of eight fields, of which the first is the command and may hold anything.
    return float(done.stdout.rsplit(b",", 7)[1].strip(b'"'))
