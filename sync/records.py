"""Log records, decoded strictly: what is not exactly a record raises RecordError.

A record is a MessagePack array that a Lua script wrote:

    [2, kind, cid, ms, version, entity_id, info, nR, R*7, nF, F*nF, C, rec]

`R` resets; `F` features of the event, each `feature_id, requested, applied, nP` and nP flat elements
that say which bucket paid what, in order; `C` changes (changes.py); `rec` what is remembered of the
call. The classes below say what is in each. This module knows no SQL.
"""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from typing import Any, NamedTuple

import msgpack

from sidecar.domain import receipt

from .changes import Change, change
from .fields import INT_MAX, Fields, RecordError, unpacked

__all__ = ["BucketPart", "Info", "Idempotency", "Part", "Record", "RecordError", "Reset", "SlotPart", "System",
           "Use", "decode"]

FORMAT = 2
USE, QUIET, STEP = 1, 2, 3
"""Kinds: an event; resets and changes without one; a step of the customer's structure."""

SYSTEM_MARK, SLOT_MARK = -1, -2
USE_AT = 9
"""Where the first feature begins in a record without resets."""
INFO_BYTES_KEPT, INFOS_KEPT = 48, 1024
"""Up to what length an info is likely to be met again as it is (no key, no properties of its own), and how
many are remembered."""
TAIL_BYTES_KEPT, TAILS_KEPT = 128, 1024
"""Up to what length all that follows the time in a record is likely to be met again, and how many are remembered."""
HEAD = struct.Struct(">BIHBqBq")
"""How `keep_directly.lua` begins a record: an array's mark and length, format and kind, then customer and time at
full width, each after its mark."""
HEAD_MARKS = 0xDD, FORMAT << 8 | USE, 0xD3, 0xD3
NO_CHANGES_NOR_CALL = b"\x90\xdb\0\0\0\0"
"""How it ends one of a call that is not remembered."""
USUAL_MIN = 15
"""Elements of a record of one feature that nobody paid for, without resets and changes."""


class Reset(NamedTuple):
    """A bucket's period ended: `delta` refills it, `over_units` is what the period owes. Of an
    unlimited bucket they are the low and the high part of what it had counted. `period_end_ms` is
    the first instant that was due, `reset_ms` the last one; `reset_over` the overage there was
    then, owed or not."""

    no: int
    delta: int
    over_units: int
    period_end_ms: int
    next_reset_ms: int
    reset_ms: int
    reset_over: int


class BucketPart(NamedTuple):
    """What was added to a bucket's balance."""

    no: int
    delta: int


class SlotPart(NamedTuple):
    """What was added to an entity's slot of the bucket `no` and to that bucket. `base` −1: to the
    slot as it was; else the slot was at `base` and gets a new `period`."""

    no: int
    entity_id: str
    delta: int
    base: int
    period: int


class System(NamedTuple):
    """A mark: the parts that follow are in credits of this system, n/d of them a unit."""

    feature_id: str
    n: int
    d: int


Part = BucketPart | SlotPart | System


class Use(NamedTuple):
    """One feature of an event: scaled, signed; who paid it, in order, also packed as it was."""

    feature_id: str
    requested: int
    applied: int
    parts: tuple[Part, ...]
    packed: bytes


class Info(NamedTuple):
    """What the server wanted kept with an event. `value` is as it was sent; `refunded` the
    (generation, sequence number) of the event it gives back, `lock_id` the hold it belongs to."""

    value: str | None = None
    event_name: str | None = None
    properties: dict[str, Any] | None = None
    timestamp: int | None = None
    key: str | None = None
    refunded: tuple[int, int] | None = None
    lock_id: str | None = None

    @property
    def of_another(self) -> bool:
        """Whether it ends a hold or gives an event back, or is a hold itself."""
        return self.lock_id is not None or self.refunded is not None


class Idempotency(NamedTuple):
    """A remembered call: the packed record as Redis keeps it, and its end."""

    end_ms: int
    record: bytes


class Record(NamedTuple):
    """One log entry. `version` is the customer's structure version after it."""

    kind: int
    cid: int
    ms: int
    version: int
    entity_id: str
    info: Info
    resets: tuple[Reset, ...]
    uses: tuple[Use, ...]
    changes: tuple[Change, ...]
    idempotency: Idempotency | None


def decode(data: bytes) -> Record:
    """The record in a log entry's `d` field. Raises RecordError."""
    if data.endswith(NO_CHANGES_NOR_CALL) and HEAD.size < len(data) <= HEAD.size + TAIL_BYTES_KEPT:
        mark, count, form, cid_mark, cid, ms_mark, ms = HEAD.unpack_from(data)
        if (mark, form, cid_mark, ms_mark) == HEAD_MARKS and cid >= 0 and ms >= 0:
            like = _like(count, data[HEAD.size :])
            if like is not None:
                return Record(USE, cid, ms, like.version, like.entity_id, like.info, (), like.uses, (), None)
    items = unpacked(data)
    return _usual(items) or decode_any(items)


@lru_cache(TAILS_KEPT)
def _like(count: int, tail: bytes) -> Record | None:
    """The usual record of so many elements that ends like this, of customer 0 at time 0; None if it is no usual one."""
    mark, form, cid_mark, ms_mark = HEAD_MARKS
    try:
        found = _usual(unpacked(HEAD.pack(mark, count, form, cid_mark, 0, ms_mark, 0) + tail))
    except RecordError:
        return None
    return None if found is None or found.idempotency is not None else found


def _usual(items: Any) -> Record | None:
    """What `decode_any` says of an event of one feature without resets and changes, which nearly all
    records are, in a fifth of its time; None of most that is not that."""
    if type(items) is not list or len(items) < USUAL_MIN:
        return None
    (form, kind, cid, ms, version, entity_id, info, resets, uses, feature_id, requested, applied, count, *parts, changes,
     rec) = items
    if not int is type(form) is type(kind) is type(cid) is type(ms) is type(version) is type(resets) is type(uses) \
            is type(requested) is type(applied) is type(count):
        return None
    if not (form == FORMAT and kind == USE and resets == 0 and uses == 1 and count == len(parts) and changes == []):
        return None
    if not (0 <= cid <= INT_MAX and 0 <= ms <= INT_MAX and 0 <= version <= INT_MAX
            and -INT_MAX <= requested <= INT_MAX and -INT_MAX <= applied <= INT_MAX):
        return None
    if not bytes is type(entity_id) is type(info) is type(feature_id) is type(rec):
        return None
    try:
        entity, feature = entity_id.decode(), feature_id.decode()
    except UnicodeDecodeError:
        return None
    if not parts:
        use = Use(feature, requested, applied, (), NO_PARTS)
    elif {*map(type, parts)} == {int} and not count & 1 and 0 <= min(parts[::2]) and -INT_MAX <= min(parts) and max(parts) <= INT_MAX:
        use = Use(feature, requested, applied, tuple(map(BucketPart, parts[::2], parts[1::2])), packed_parts(parts))
    else:
        fields = Fields(items)
        fields.at = USE_AT
        use = _use(fields)
    told = _info_again(info) if len(info) <= INFO_BYTES_KEPT else _info(info)
    if rec and told.key is None:
        return None
    return Record(USE, cid, ms, version, entity, told, (), (use,), (), _idempotency(rec, cid) if rec else None)


def decode_any(items: Any) -> Record:
    """The record in an unpacked entry, of any shape. Raises RecordError."""
    fields = Fields(items)
    if fields.whole() != FORMAT:
        raise RecordError(f"format {fields.items[0]!r}, this release reads {FORMAT}")
    kind, cid, ms, version = fields.natural(), fields.natural(), fields.natural(), fields.natural()
    if kind not in (USE, QUIET, STEP):
        raise RecordError(f"kind {kind}")
    entity_id = fields.text()
    info = _info(fields.raw())
    resets = fields.many(lambda: Reset(
        fields.natural(), fields.whole(), fields.natural(), fields.natural(), fields.natural(), fields.natural(),
        fields.natural(),
    ))
    uses = fields.many(lambda: _use(fields))
    changes = tuple([change(one) for one in fields.array()])
    rec = fields.raw()
    fields.end("the record")
    if kind == USE and not uses:
        raise RecordError("an event of no feature")
    if kind == QUIET and (uses or not (resets or changes)):
        raise RecordError("a record of no event with an event, or with nothing at all")
    if rec and info.key is None:
        raise RecordError("an idempotency record without its key")
    return Record(
        kind, cid, ms, version, entity_id, info, resets, uses, changes, _idempotency(rec, cid) if rec else None
    )


def _use(fields: Fields) -> Use:
    feature_id, requested, applied = fields.text(), fields.whole(), fields.whole()
    count = fields.count()
    first = fields.at
    if first + count > len(fields.items):
        raise RecordError(f"{count} elements of parts, of {len(fields.items) - first}")
    parts: list[Part] = []
    while fields.at < first + count:
        parts.append(_part(fields))
    if fields.at != first + count:
        raise RecordError("a part goes on past the last of them")
    return Use(feature_id, requested, applied, tuple(parts), packed_parts(fields.items[first : fields.at]))


def _part(fields: Fields) -> Part:
    mark = fields.whole()
    if mark == SYSTEM_MARK:
        found = System(fields.text(), fields.natural(), fields.natural())
        if not found.d:
            raise RecordError(f"a cost of {found.n}/0")
        return found
    if mark == SLOT_MARK:
        return SlotPart(fields.natural(), fields.text(), fields.whole(), fields.whole(), fields.natural())
    if mark < 0:
        raise RecordError(f"a part of the bucket {mark}")
    return BucketPart(mark, fields.whole())


_pack = msgpack.Packer(use_bin_type=False).pack


def packed_parts(flat: list[Any]) -> bytes:
    """The flat elements of parts in their packed form: texts as Lua packs them."""
    return _pack(flat)


NO_PARTS = packed_parts([])


def _info(data: bytes) -> Info:
    if not data:
        return Info()
    try:
        found = msgpack.unpackb(data, raw=False, strict_map_key=False)
    except Exception as error:
        raise RecordError(f"info: {error}") from error
    if not isinstance(found, dict):
        raise RecordError("info is not a map")
    get = found.get
    timestamp, properties, refunded = get("t"), get("p"), get("r")
    if timestamp is not None and (type(timestamp) is not int or abs(timestamp) > INT_MAX):
        raise RecordError(f"info: timestamp {timestamp!r}")
    if properties is not None and not isinstance(properties, dict):
        raise RecordError("info: properties are not a map")
    value, event_name, key, lock_id = texts = get("v"), get("n"), get("k"), get("l")
    for text in texts:
        if text is not None and type(text) is not str:
            raise RecordError(f"info: a text is {type(text).__name__}")
    return Info(
        value, event_name, None if properties is None else json_safe(properties), timestamp, key,
        None if refunded is None else _refunded(refunded), lock_id,
    )


_info_again = lru_cache(INFOS_KEPT)(_info)


def _refunded(value: Any) -> tuple[int, int]:
    fields = Fields(value)
    found = fields.natural(), fields.natural()
    fields.end("info: the event given back")
    return found


def json_safe(value: Any, depth_max: int = 64) -> Any:
    """A caller's value as JSON can hold it. What JSON cannot say (NaN, binary, extension types)
    becomes null or text, what is nested too deep null: no caller may write an event that SQL
    refuses."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    deeper = depth_max - 1
    if isinstance(value, dict) and deeper:
        return {str(key): json_safe(item, deeper) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and deeper:
        return [json_safe(item, deeper) for item in value]
    return str(value) if deeper else None


def _idempotency(data: bytes, cid: int) -> Idempotency:
    try:
        found = receipt.unpack(data)
    except ValueError as problem:
        raise RecordError(f"idempotency record: {problem}") from problem
    if found.cid != cid:
        raise RecordError("idempotency record of another customer")
    return Idempotency(found.end_ms, data)
