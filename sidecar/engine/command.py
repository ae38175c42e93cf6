"""The bytes of a check's or track's command to Redis.

Of the usual call (one feature, no entity, no hold, nothing given back) only the customer, the amount,
the info and the key differ from one to the next: the rest is packed once and put around them. Whatever
else a call may be is packed argument by argument; a test holds the two equal.
"""

from __future__ import annotations

import struct
from typing import Any

import hiredis
import msgspec

from . import keys, scripts
from .call import Plan, Spend, is_logged, packed_call, packed_kept

_USUAL = b"%b%b$%d\r\n%b%b\r\n%b$%d\r\n%b%b\r\n%b%b%b$8\r\n%b\r\n%b"
"""Command · meta · customer · log · entities · record · generation and run_id · what the call is · amount · info and
what is said of a key."""

_MORE = b"$%d\r\n\xdb%b%b\r\n"
_MORE_KEYED = _MORE + b"$%d\r\n%b%c%b\r\n"
"""Info, and with a key what is said of that: as `packed_text` and `packed_kept` of call.py."""

_pack_amount, _pack_size = struct.Struct(">q").pack, struct.Struct(">I").pack


def bulk(value: Any) -> bytes:
    """One argument, packed."""
    data = value if isinstance(value, bytes) else str(value).encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


class _Place(msgspec.Struct):
    """What is said of an open partition."""

    generation: bytes
    run_id: bytes
    fence: bytes
    meta: bytes
    log: bytes
    customer: bytes
    entities: bytes


class _Frame(msgspec.Struct):
    """What is said of every usual call of a feature in one mode: the command's beginning without a
    key and with one, what the call is, and whether the log keeps its info."""

    begin: bytes
    begin_keyed: bytes
    call: bytes
    is_logged: bool


class Packer:
    """Packs the calls of one engine: `settings` are what every call says of them, in the order of
    the scripts' arguments: carry_debts, ttl_ms, bytes_max."""

    def __init__(self, settings: tuple[int, int, int]):
        self._carry_debts, ttl_ms, bytes_max = settings
        self._kept = packed_kept(ttl_ms, bytes_max, b"")[:-1]
        self._places: dict[int, _Place] = {}

    def pack(self, call: Spend, plan: Plan, p: int, generation: bytes, run_id: bytes, record_key: bytes = b"") -> bytes | None:
        """The command of a usual call, None for another."""
        if call.entity_id or call.lock is not None or call.refunded is not None or len(call.features) != 1:
            return None
        kind = (call.script.name, call.mode, call.brief)
        frame = plan.frames.get(kind)
        if frame is None:
            frame = plan.frames[kind] = self._frame(call, plan)
        place = self._places.get(p)
        if place is None or place.generation != generation or place.run_id != run_id:
            place = self._places[p] = _place(p, generation, run_id)
        name = call.customer_id.encode()
        size = len(place.customer) + len(name)
        info = call.info
        begin, record, more = frame.begin, b"", b""
        if record_key:
            begin, record, prints = frame.begin_keyed, b"$%d\r\n%b\r\n" % (len(record_key), record_key), call.fingerprint
            more = _MORE_KEYED % (len(info) + 5, _pack_size(len(info)), info, len(prints) + 17, self._kept, len(prints), prints)
        elif frame.is_logged:
            more = _MORE % (len(info) + 5, _pack_size(len(info)), info)
        return _USUAL % (
            begin, place.meta, size, place.customer, name, place.log, size, place.entities, name, record, place.fence,
            frame.call, _pack_amount(call.features[0][1]), more,
        )

    def _frame(self, call: Spend, plan: Plan) -> _Frame:
        logged = is_logged(call)
        begin = b"*%d\r\n" + bulk("EVALSHA") + bulk(call.script.sha) + b"$1\r\n%d\r\n"
        parts = 3 + 4 + 2 + 2
        return _Frame(
            begin % (parts + logged, 4), begin % (parts + 3, 5), bulk(packed_call(call, plan, self._carry_debts)), logged,
        )


def _place(p: int, generation: bytes, run_id: bytes) -> _Place:
    return _Place(
        generation, run_id, bulk(generation) + bulk(run_id), bulk(keys.meta(p)), bulk(keys.log(p)),
        keys.customer(p, ""), keys.entities(p, ""),
    )


def packed(script: scripts.Script, script_keys: tuple[bytes, ...], args: tuple[Any, ...]) -> bytes:
    """Any script's command."""
    command: bytes = hiredis.pack_command(("EVALSHA", script.sha, len(script_keys), *script_keys, *args))
    return command
