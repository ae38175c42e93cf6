"""The bytes of a check's or track's command to Redis.

Of the usual call (one feature, no entity, no hold, nothing given back) only the customer, the amount,
the info and the key differ from one to the next: the rest is packed once and put around them. Whatever
else a call may be is packed argument by argument; a test holds the two equal.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import hiredis

from . import keys, scripts
from .call import Plan, Spend

_USUAL = b"%b%b$%d\r\n%b%b\r\n%b$%d\r\n%b%b\r\n%b%b%b$%d\r\n%b\r\n%b%b$%d\r\n%b\r\n%b"
"""Command · meta · customer · log · entities · record · generation and run_id · what the call is · info
· fingerprint · its feature · amount · its credit systems."""

_EMPTY = b"$0\r\n\r\n"


def bulk(value: Any) -> bytes:
    """One argument, packed."""
    data = value if isinstance(value, bytes) else str(value).encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


class _Place(NamedTuple):
    """What is said of an open partition."""

    generation: bytes
    run_id: bytes
    fence: bytes
    meta: bytes
    log: bytes
    customer: bytes
    entities: bytes


class _Frame(NamedTuple):
    """What is said of every usual call of a feature in one mode: the command's beginning without a
    key and with one, and what comes after run_id, after the fingerprint, and after the amount."""

    begin: bytes
    begin_keyed: bytes
    what: bytes
    feature: bytes
    systems: bytes


class Packer:
    """Packs the calls of one engine: `settings` are what every call says of them, in the order of
    the scripts' arguments: carry_debts, ttl_ms, bytes_max."""

    def __init__(self, settings: tuple[int, int, int]):
        self._carry_debts, self._ttl_ms, self._bytes_max = settings
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
        name, info, amount = call.customer_id.encode(), call.info, b"%d" % call.features[0][1]
        size = len(place.customer) + len(name)
        begin, record, fingerprint = frame.begin, b"", _EMPTY
        if record_key:
            begin, record, fingerprint = frame.begin_keyed, bulk(record_key), bulk(call.fingerprint)
        return _USUAL % (
            begin, place.meta, size, place.customer, name, place.log, size, place.entities, name, record, place.fence,
            frame.what, len(info), info, fingerprint, frame.feature, len(amount), amount, frame.systems,
        )

    def _frame(self, call: Spend, plan: Plan) -> _Frame:
        feature_id, at, systems = plan.spec[0]
        is_track = call.script is scripts.TRACK
        first: Any = call.mode if is_track else int(call.mode == "send")
        brief = (int(call.brief),) if is_track else ()
        names = (*brief, *plan.bucket_fields, *plan.attached_fields)
        parts = 3 + 4 + 2 + 9 + len(names) + 4 + len(systems)
        begin = b"*%d\r\n" + bulk("EVALSHA") + bulk(call.script.sha) + b"$1\r\n%d\r\n"
        return _Frame(
            begin % (parts, 4), begin % (parts + 1, 5),
            bulk(self._carry_debts) + bulk(first) + _EMPTY,
            b"".join(map(bulk, (self._ttl_ms, "", self._bytes_max, len(plan.fields), *names, 1, feature_id, at))),
            b"".join(map(bulk, systems)),
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
