"""The sockets of the HTTP server: bound by the supervisor, inherited by every HTTP worker."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from ..settings import Settings
from .errors import RunError

BACKLOG = 2048


def bind(settings: Settings) -> list[socket.socket]:
    """The TCP socket and, if asked for, the Unix socket, bound and not yet listening.

    Bound without SO_REUSEPORT, or two sidecars would share a port in silence. Raises RunError
    when either is in use or cannot be had."""
    sockets = [_tcp(settings.host, settings.port)]
    if settings.uds is not None:
        try:
            sockets.append(_unix(settings.uds))
        except BaseException:
            sockets[0].close()
            raise
    return sockets


def start(sockets: list[socket.socket]) -> None:
    """Listens on each. Raises RunError when another process began to between `bind` and now."""
    for sock in sockets:
        try:
            sock.listen(BACKLOG)
        except OSError as error:
            raise RunError(f"cannot listen on {address(sock)}: {error.strerror}; choose another --port") from None


def address(sock: socket.socket) -> str:
    """Where a socket can be reached, for people: `http://host:port` or `unix:path`."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"http://{host}:{name[1]}"


def close(sockets: list[socket.socket]) -> None:
    """Closes the supervisor's copies and removes the Unix socket's file."""
    for sock in sockets:
        if sock.family == socket.AF_UNIX and sock.fileno() >= 0:
            Path(sock.getsockname()).unlink(missing_ok=True)
        sock.close()


def _tcp(host: str, port: int) -> socket.socket:
    try:
        family, kind, proto, _, name = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise RunError(f"cannot resolve the host {host!r}: {error.strerror}; try --host 127.0.0.1") from None
    sock = socket.socket(family, kind, proto)
    # Past connections in TIME_WAIT must not keep a restart off its port; a live listener still does.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if sock.family == socket.AF_INET6 and host == "::":  # before `bind`: later Linux refuses it
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(name)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise RunError(
                f"port {port} on {host} is in use by another program; choose another with --port, or stop it"
            ) from None
        if error.errno == errno.EACCES:
            raise RunError(f"no right to use port {port}; choose one from 1024 up with --port") from None
        raise RunError(f"cannot use {host}:{port}: {error.strerror}; try --host 127.0.0.1") from None
    return sock


def _unix(path: Path) -> socket.socket:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(os.fspath(path))
    except OSError as error:
        sock.close()
        raise RunError(f"cannot make the Unix socket {path}: {error.strerror}; choose another --uds") from None
    return sock


def _remove_stale(path: Path) -> None:
    """Removes a socket nobody listens on; a killed sidecar leaves one."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise RunError(f"{path} exists and is not a socket; choose another --uds, or move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass
    raise RunError(f"the Unix socket {path} is in use by another program; choose another --uds, or stop it")
