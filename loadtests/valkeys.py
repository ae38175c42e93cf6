"""A Valkey of one's own for a measurement, from the wheel the sidecar embeds."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from sidecar import folder
from sidecar.run.valkey import LAYOUT, Files, binary

from .processes import running


@contextlib.contextmanager
def valkey() -> Iterator[redis.Redis]:
    """One without persistence, for the cost of scripts alone."""
    with _folder() as path:
        options: tuple[str, ...] = ("--port", "0", "--unixsocket", f"{path}/s", "--dir", str(path), "--save", "", "--logfile", f"{path}/log")
        for name, value in LAYOUT.items():
            options += (f"--{name}", value)
        with _client([str(binary()), *options], f"{path}/s") as client:
            yield client


@contextlib.contextmanager
def embedded() -> Iterator[redis.Redis]:
    """One with the very configuration that `sidecar serve` gives its own."""
    with _folder() as path:
        folder.valkey(path).parent.mkdir(parents=True, exist_ok=True)
        files = Files(path)
        socket_path = files.prepare("everysec")
        try:
            with _client([str(binary()), str(files.config)], str(socket_path)) as client:
                yield client
        finally:
            files.remove_socket()


def socket_of(client: redis.Redis) -> str:
    """The socket a client is connected to."""
    return str(client.connection_pool.connection_kwargs["path"])


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as name:  # short: socket paths end at 107 bytes
        yield Path(name)


@contextlib.contextmanager
def _client(command: list[str], socket_path: str) -> Iterator[redis.Redis]:
    with running(command, stdin=subprocess.DEVNULL):
        with redis.Redis(unix_socket_path=socket_path, retry=Retry(ConstantBackoff(0.05), 400)) as client:
            client.ping()  # once it is up
            yield client
