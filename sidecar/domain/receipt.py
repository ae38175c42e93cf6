"""What is remembered of a call under an idempotency key, packed as lua/include/receipt.lua does:
format, end, customer, fingerprint, and the reply. Redis keeps it with the entry's id behind it, the log
and SQL as it is."""

from __future__ import annotations

import struct
from typing import NamedTuple

FORMAT = 2
_HEAD = struct.Struct(">BqqB")


class Receipt(NamedTuple):
    """`reply` is MessagePack; b"" for a call whose entry's id is answer enough, and for the place of one
    that is under way."""

    end_ms: int
    cid: int
    fingerprint: bytes
    reply: bytes


def pack(receipt: Receipt) -> bytes:
    """The packed form."""
    end_ms, cid, fingerprint, reply = receipt
    return _HEAD.pack(FORMAT, end_ms, cid, len(fingerprint)) + fingerprint + reply


def unpack(data: bytes) -> Receipt:
    """The receipt in its packed form. Raises ValueError for what is none that this release can read."""
    if len(data) < _HEAD.size:
        raise ValueError(f"a receipt of {len(data)} bytes")
    form, end_ms, cid, size = _HEAD.unpack_from(data)
    reply_at = _HEAD.size + size
    if form != FORMAT or len(data) < reply_at:
        raise ValueError(f"a receipt of {len(data)} bytes in format {form}")
    return Receipt(end_ms, cid, data[_HEAD.size : reply_at], data[reply_at:])


def unpack_record(data: bytes) -> tuple[Receipt, bytes]:
    """A receipt as Redis keeps it, and the id of the log entry that made it. Raises ValueError."""
    size = data[-1] + 1 if data else 0
    if not 0 < size < len(data):
        raise ValueError(f"an idempotency record of {len(data)} bytes")
    return unpack(data[:-size]), data[-size:-1]
