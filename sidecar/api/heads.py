"""Heads of requests: what they say of a usual check or track, and a memory of those seen before.

A client that keeps its connection sends the same head again and again. One that was parsed, found
usual and remembered byte for byte is not parsed again; two that differ in a byte are two heads.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ApiError
from . import check_track, wire
from .auth import Keys

BODY_BYTES_MAX = 64 * 1024
"""A request with a longer body is not usual."""

HEADS_MAX = 2_000
HEAD_BYTES_MAX = 1_000
VERSIONS_MAX = 100
END = b"\r\n\r\n"
PACKED = wire.MSGPACK.encode()

ROUTES = {
    path.encode(): verb
    for verb, paths in (("check", check_track.CHECK_PATHS), ("track", check_track.TRACK_PATHS))
    for path in paths
}
LOOKED_AT = frozenset(
    (b"authorization", b"content-length", b"content-type", b"accept", b"x-api-version", b"idempotency-key")
)
UNUSUAL = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"content-encoding"))


@dataclass(frozen=True, slots=True)
class Head:
    """What the head of a usual request says; `key` is its idempotency key, `length` its body's bytes;
    `packed` that body and answer are MessagePack, not JSON."""

    verb: str
    version: tuple[int, int]
    env: str
    key: str | None
    length: int
    packed: bool = False

    @property
    def form(self) -> str:
        """The content type of body and answer."""
        return wire.MSGPACK if self.packed else wire.JSON


class Heads:
    """Reads the heads of a process' requests. The keys must be the same for as long as it lives: a
    remembered head was let in by them."""

    def __init__(self, keys: Keys):
        self._keys = keys
        self._versions: dict[bytes, tuple[int, int]] = {}
        self.known: dict[bytes, Head] = {}
        """Heads seen before, `END` included: whole requests with `length` bytes behind, on a
        connection that is kept."""

    def read(self, url: bytes, headers: list[tuple[bytes, bytes]]) -> Head | None:
        """What a POST's head says, None if the request is not usual. Names are in lower case."""
        verb = ROUTES.get(url)
        if verb is None:
            return None
        env = key = None
        version = wire.DEFAULT_VERSION
        length = None
        content_type, accept = b"application/json", b""
        seen = set()
        for name, value in headers:
            if name not in LOOKED_AT:
                if name in UNUSUAL:
                    return None
                continue
            if name in seen:
                return None
            seen.add(name)
            if name == b"authorization":
                env = self._keys.secret_env(value.decode("latin-1"))
            elif name == b"content-length":
                length = int(value) if len(value) < 7 and value.isdigit() else None
            elif name == b"content-type":
                content_type = value
            elif name == b"accept":
                accept = value
            elif name == b"x-api-version":
                known = self._version_of(value)
                if known is None or known < wire.DEFAULT_VERSION:
                    return None
                version = known
            else:
                key = value.decode("latin-1")
        if env is None or length is None or not 0 < length <= BODY_BYTES_MAX:
            return None
        packed = content_type == PACKED
        if packed != (accept == PACKED) or (not packed and (b"msgpack" in accept or not content_type.startswith(b"application/json"))):
            return None
        return Head(verb, version, env, key, length, packed)

    def remember(self, data: bytes, end: int, head: Head, body: bytes | bytearray) -> None:
        """Keeps the head in `data`, a chunk in which the parser found that head and `body` and nothing
        else, if it ends at `end`. One with an idempotency key is not sent again."""
        if head.key is not None or end > HEAD_BYTES_MAX or data[end:] != body:
            return
        text = data[:end]
        if text.count(b"\n") != text.count(b"\r\n"):
            return  # what else ends a line is the parser's to say, and then the head may end elsewhere
        if len(self.known) >= HEADS_MAX:
            self.known.clear()  # of a client whose heads all differ; others are soon known again
        self.known[text] = head

    def _version_of(self, header: bytes) -> tuple[int, int] | None:
        """The version a header names, None if the ordinary way has something to say about it."""
        known = self._versions.get(header)
        if known is None:
            try:
                known = wire.version_of(header.decode("latin-1"))
            except ApiError:
                return None
            if len(self._versions) < VERSIONS_MAX:
                self._versions[header] = known
        return known
