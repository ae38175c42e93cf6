"""Log records, decoded strictly: what is not exactly a record raises RecordError.

A record is a MessagePack array that a Lua script wrote:

    [1, kind, cid, ms, version, entity_id, info, nR, R*5, nF, F*3, nD, D*2, nS, S*5, C, rec]

`R` resets, `F` features of the event, `D` deltas of buckets, `S` deltas of slots, `C` changes of
structure, `rec` what is remembered of the call; the classes below say what is in each. Lua has one
type of string, so texts arrive as bytes or text alike. This module knows no SQL.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple, Sequence, TypeVar, get_type_hints

import msgpack

from sidecar.domain import layout

FORMAT = 1
USE, RESET, STEP = 1, 2, 3
INT_MAX = (1 << 63) - 1  # what both databases can keep; scripts stay far below
COUNT_MAX = 100_000  # parts of one kind in one record: a script touches at most some thousands

T = TypeVar("T")


class RecordError(ValueError):
    """The entry is not a record, or says something that cannot be."""


class Reset(NamedTuple):
    """A bucket's period ended: `delta` refills it, `over_units` is what the period owes. Of an
    unlimited bucket they are the low and the high part of what it had counted."""

    no: int
    delta: int
    over_units: int
    period_end_ms: int
    next_reset_ms: int


class Use(NamedTuple):
    """One feature of an event: scaled, signed."""

    feature_id: str
    requested: int
    applied: int


class Delta(NamedTuple):
    """What was added to a bucket's balance."""

    no: int
    delta: int


class SlotDelta(NamedTuple):
    """What was added to an entity's slot of the bucket `no` and to that bucket. `base` −1: to the
    slot as it was; else the slot was at `base` and gets a new `period`."""

    no: int
    entity_id: str
    delta: int
    base: int
    period: int


class BucketAdded(NamedTuple):
    """A bucket as it stands after the step."""

    feature_id: str
    row: layout.Row


class BucketDropped(NamedTuple):
    """A bucket that went, its balance at that moment and the overage its period owes."""

    feature_id: str
    no: int
    balance: int
    owed_units: int


class SumsChanged(NamedTuple):
    """Changes of a bucket's counts that no usage made (entities opened and closed)."""

    feature_id: str
    no: int
    balance: int
    granted: int
    slots: int
    over: int


class EntityOpened(NamedTuple):
    """An entity that Redis now has."""

    entity_id: str
    feature_id: str


class EntityClosed(NamedTuple):
    """An entity that Redis no longer has."""

    entity_id: str


class EntityRefused(NamedTuple):
    """An entity for which there was no room."""

    entity_id: str
    feature_id: str


class CustomerDeleted(NamedTuple):
    """The customer left Redis."""


Change = (
    BucketAdded | BucketDropped | SumsChanged | EntityOpened | EntityClosed | EntityRefused | CustomerDeleted
)


@dataclass(frozen=True, slots=True)
class Info:
    """What the server wanted kept with an event. `value` is as it was sent."""

    value: str = "1"
    event_name: str | None = None
    properties: dict[str, Any] | None = None
    timestamp: int | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A remembered call: the packed record as Redis keeps it, and its end."""

    end_ms: int
    record: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """One log entry. `version` is the customer's structure version after it."""

    kind: int
    cid: int
    ms: int
    version: int
    entity_id: str
    info: Info
    resets: tuple[Reset, ...]
    uses: tuple[Use, ...]
    deltas: tuple[Delta, ...]
    slots: tuple[SlotDelta, ...]
    changes: tuple[Change, ...]
    idempotency: Idempotency | None

    @property
    def touches_buckets(self) -> bool:
        """Whether any bucket is named."""
        return bool(self.resets or self.deltas or self.slots or self.changes)


def decode(data: bytes) -> Record:
    """The record in a log entry's `d` field. Raises RecordError."""
    parts = _Parts(_unpack(data))
    if parts.whole() != FORMAT:
        raise RecordError(f"format {parts.items[0]!r}, this release reads {FORMAT}")
    kind, cid, ms, version = parts.natural(), parts.natural(), parts.natural(), parts.natural()
    if kind not in (USE, RESET, STEP):
        raise RecordError(f"kind {kind}")
    entity_id = parts.text()
    info = _info(parts.raw())
    resets = parts.many(lambda: Reset(parts.natural(), parts.whole(), parts.natural(), parts.natural(), parts.natural()))
    uses = parts.many(lambda: Use(parts.text(), parts.whole(), parts.whole()))
    deltas = parts.many(lambda: Delta(parts.natural(), parts.whole()))
    slots = parts.many(
        lambda: SlotDelta(parts.natural(), parts.text(), parts.whole(), parts.whole(), parts.natural())
    )
    changes = tuple(_change(change) for change in parts.array())
    rec = parts.raw()
    if parts.at != len(parts.items):
        raise RecordError(f"{len(parts.items) - parts.at} parts too many")
    if kind == USE and not uses:
        raise RecordError("an event of no feature")
    if kind == RESET and (uses or deltas or slots or not resets):
        raise RecordError("a reset record with something else, or without a reset")
    if kind != STEP and changes:
        raise RecordError("changes of structure outside a step")
    if rec and info.key is None:
        raise RecordError("an idempotency record without its key")
    return Record(
        kind, cid, ms, version, entity_id, info, resets, uses, deltas, slots, changes,
        _idempotency(rec, cid) if rec else None,
    )


class _Parts:
    """Takes a flat array apart, one typed element after the other."""

    __slots__ = ("items", "at")

    def __init__(self, items: Any):
        if type(items) is not list:
            raise RecordError(f"not an array but {type(items).__name__}")
        self.items: list[Any] = items
        self.at = 0

    def next(self) -> Any:
        at = self.at
        if at >= len(self.items):
            raise RecordError(f"ends after {at} parts")
        self.at = at + 1
        return self.items[at]

    def whole(self) -> int:
        value = self.next()
        if type(value) is not int or not -INT_MAX <= value <= INT_MAX:
            raise RecordError(f"part {self.at - 1} is {value!r}, not a whole number")
        return value

    def natural(self) -> int:
        value = self.whole()
        if value < 0:
            raise RecordError(f"part {self.at - 1} is {value}, below zero")
        return value

    def raw(self) -> bytes:
        value = self.next()
        if type(value) is not bytes:
            raise RecordError(f"part {self.at - 1} is {type(value).__name__}, not bytes")
        return value

    def text(self) -> str:
        try:
            return self.raw().decode()
        except UnicodeDecodeError as error:
            raise RecordError(f"part {self.at - 1} is not UTF-8") from error

    def array(self) -> list[Any]:
        value = self.next()
        if value == {}:  # an empty Lua table may be packed as either
            return []
        if type(value) is not list:
            raise RecordError(f"part {self.at - 1} is {type(value).__name__}, not an array")
        return value

    def many(self, one: Callable[[], T]) -> tuple[T, ...]:
        count = self.natural()
        if count == 0:
            return ()
        if count > COUNT_MAX:
            raise RecordError(f"{count} parts of one kind")
        return tuple([one() for _ in range(count)])


_ROW_TEXTS = tuple(get_type_hints(layout.Row)[name] is str for name in layout.Row._fields)


def _change(value: Any) -> Change:
    parts = _Parts(value)
    tag = parts.text()
    found: Change
    if tag == "+":
        found = BucketAdded(parts.text(), _row(parts.array()))
    elif tag == "-":
        found = BucketDropped(parts.text(), parts.natural(), parts.whole(), parts.natural())
    elif tag == "~":
        found = SumsChanged(
            parts.text(), parts.natural(), parts.whole(), parts.whole(), parts.whole(), parts.whole()
        )
    elif tag == "e+":
        found = EntityOpened(parts.text(), parts.text())
    elif tag == "e-":
        found = EntityClosed(parts.text())
    elif tag == "e!":
        found = EntityRefused(parts.text(), parts.text())
    elif tag == "x":
        found = CustomerDeleted()
    else:
        raise RecordError(f"change {tag!r}")
    if parts.at != len(parts.items):
        raise RecordError(f"change {tag!r} has parts too many")
    return found


def _row(values: Sequence[Any]) -> layout.Row:
    if len(values) != layout.ROW_WIDTH:
        raise RecordError(f"a bucket of {len(values)} columns")
    parts = _Parts(list(values))
    return layout.Row(*[parts.text() if is_text else parts.whole() for is_text in _ROW_TEXTS])


def _info(data: bytes) -> Info:
    if not data:
        return Info()
    try:
        found = msgpack.unpackb(data, raw=False, strict_map_key=False)
    except Exception as error:
        raise RecordError(f"info: {error}") from error
    if not isinstance(found, dict):
        raise RecordError("info is not a map")
    timestamp = found.get("t")
    if timestamp is not None and (type(timestamp) is not int or abs(timestamp) > INT_MAX):
        raise RecordError(f"info: timestamp {timestamp!r}")
    properties = found.get("p")
    if properties is not None and not isinstance(properties, dict):
        raise RecordError("info: properties are not a map")
    value = _plain(found.get("v"), "v")
    return Info(
        value="1" if value is None else value,
        event_name=_plain(found.get("n"), "n"),
        properties=None if properties is None else json_safe(properties),
        timestamp=timestamp,
        key=_plain(found.get("k"), "k"),
    )


def _plain(value: Any, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise RecordError(f"info: {name} is {type(value).__name__}")
    return value


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
    parts = _Parts(_unpack(data))
    if parts.whole() != FORMAT:
        raise RecordError("idempotency record of another format")
    end_ms = parts.natural()
    if parts.natural() != cid:
        raise RecordError("idempotency record of another customer")
    return Idempotency(end_ms, data)


def _unpack(data: bytes) -> Any:
    try:
        return msgpack.unpackb(data, raw=True, strict_map_key=False)
    except Exception as error:  # msgpack raises ValueError, its own errors and some of struct's
        raise RecordError(f"not MessagePack: {error}") from error
