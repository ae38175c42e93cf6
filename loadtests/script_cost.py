"""What calls of scripts cost Redis: the server's own processor time a call, and what a bare client gets."""

from __future__ import annotations

import contextlib
import itertools
import selectors
import socket
import time
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
"""What `calls_per_s` replaces by a number of as many digits, another in every call."""

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


def calls_per_s(client: redis.Redis, command: Command, count: int, at_once: int) -> float:
    """What a client gets that does no more than redis-benchmark (which takes no arguments with zero bytes in
    them): over 16 connections, with so many calls under way on each; RANDOM in them is replaced each time."""
    packed, path = hiredis.pack_command(command), socket_of(client)
    numbers = itertools.count(10 ** (len(RANDOM) - 1))
    left, under_way = count // at_once, 0

    def send(sock: socket.socket) -> None:
        sock.sendall(b"".join([packed.replace(RANDOM, b"%d" % next(numbers)) for _ in range(at_once)]))

    with contextlib.ExitStack() as stack:
        waiting = stack.enter_context(selectors.DefaultSelector())
        began_at = time.perf_counter()
        for _ in range(min(CONNECTIONS, left)):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(path)
            waiting.register(sock, selectors.EVENT_READ, (hiredis.Reader(), []))
            send(sock)
            under_way += 1
        left -= under_way
        while under_way:
            for key, _ in waiting.select():
                sock, (reader, found) = key.fileobj, key.data
                assert isinstance(sock, socket.socket)
                reader.feed(sock.recv(1 << 20))
                while (answer := reader.gets()) is not False:
                    found.append(answer)
                if len(found) < at_once:
                    continue
                require_done(found)
                found.clear()
                if left:
                    send(sock)
                    left -= 1
                else:
                    under_way -= 1
        return count // at_once * at_once / (time.perf_counter() - began_at)
