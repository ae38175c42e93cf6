"""Asks the own HTTP server whether it is ready, without an HTTP library."""

from __future__ import annotations

import json
import socket

ANSWER_BYTES_MAX = 1 << 16


def readiness(listening: socket.socket, timeout_s: float = 2.0) -> str | None:
    """None if `/readyz` answers 200; otherwise what it says is missing, as text."""
    host, port, *_ = listening.getsockname()
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    try:
        with socket.create_connection((local, port), timeout_s) as sock:
            sock.settimeout(timeout_s)
            sock.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b""
            while len(answer) < ANSWER_BYTES_MAX and (part := sock.recv(4096)):
                answer += part
    except OSError as error:
        return f"no answer on {local}:{port} ({error})"
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if status == [b"200"]:
        return None
    return _reason(body) or f"/readyz answers {head[:40]!r}"


def _reason(body: bytes) -> str:
    try:
        value = json.loads(body)
        return "; ".join(value.get("reasons") or ()) or str(value.get("message") or body.decode())
    except (ValueError, AttributeError):
        return body.decode("utf-8", "replace")[:500]
