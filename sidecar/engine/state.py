"""A customer's state as read from Redis."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Sequence

import msgpack

from ..domain import layout
from ..domain.layout import Archived, Row, Slot

Place = tuple[str, str]
"""feature, entity ('' for the customer)."""


class Caps(NamedTuple):
    """The caps of a feature: spend limits (kind, value, …), overage control (-1 inherit, 0 off, 1
    on), usage-limit windows (limit, interval, anchor, …). None inherits, an empty list is none."""

    spend_limits: list[int] | None
    control: int
    windows: list[int] | None


class Window(NamedTuple):
    """A usage-limit window's counter: interval code, anchor (0 billing cycle, 1 UTC), bounds, use."""

    interval: int
    anchor: int
    start: int
    end: int
    used: int


class OpenHold(NamedTuple):
    """A hold's end, its receipt (packed), and the log entry that made it."""

    expires_ms: int
    receipt: bytes
    gen: int
    seq: int


@dataclass(frozen=True)
class CustomerState:
    """A customer at one moment. `now_ms` is the script's clock; `features` holds customer-level
    buckets in spending order; `entities` what one entity has of a feature: own buckets and slots;
    `archived` what left the hot state of either."""

    cid: int
    version: int
    log_gen: int
    log_seq: int
    last_ms: int
    now_ms: int
    features: dict[str, tuple[Row, ...]] = field(default_factory=dict)
    entities: dict[tuple[str, str], tuple[tuple[Row, ...], tuple[Slot, ...]]] = field(default_factory=dict)
    entity_features: dict[str, str] = field(default_factory=dict)
    archived: dict[Place, Archived] = field(default_factory=dict)
    caps: dict[Place, Caps] = field(default_factory=dict)
    windows: dict[Place, list[Window]] = field(default_factory=dict)
    holds: dict[str, OpenHold] = field(default_factory=dict)
    refused: dict[int, int] = field(default_factory=dict)
    """Why each of the last refused steps was, by version: loader.StepOutcome."""

    def held(self, feature_id: str) -> list[Row]:
        """The feature's buckets that are not expired, customer-level and of every entity."""
        rows = list(self.features.get(feature_id, ()))
        for (feature, _), (own, _slots) in self.entities.items():
            if feature == feature_id:
                rows.extend(own)
        return [row for row in rows if not row.expires_at or row.expires_at > self.now_ms]


def decode_state(now_ms: int, flat: Sequence[bytes]) -> CustomerState:
    """The state in a hash's fields and values, one after the other. Raises ValueError for a format
    this release cannot read."""
    fields = dict(zip(flat[::2], flat[1::2]))
    header = layout.unpack_header(fields[b"h"])
    state = CustomerState(header.cid, header.version, header.log_gen, header.log_seq, header.last_ms, now_ms)
    for name, value in fields.items():
        kind, rest = name[:2], name[2:]
        if kind in (b"b:", b"x:"):
            blob, place = layout.unpack(value), place_of(rest)
            if kind == b"b:":
                state.features[place[0]] = blob.rows
            else:
                state.entities[place] = blob.rows, blob.slots
            if blob.archived.count:
                state.archived[place] = blob.archived
        elif kind == b"e:":
            state.entity_features[rest.decode()] = value.decode()
        elif kind == b"k:":
            state.caps[place_of(rest)] = unpack_caps(value)
        elif kind == b"w:":
            state.windows[place_of(rest)] = unpack_windows(value)
        elif kind == b"l:":
            state.holds[rest.decode()] = unpack_hold(value)
        elif name == b"j":
            told = msgpack.unpackb(value)
            state.refused.update(zip(told[::2], told[1::2]))
    return state


def place_of(name: bytes) -> Place:
    """The feature and entity that a field is of, without its kind."""
    feature_id, _, entity_id = name.partition(b"\0")
    return feature_id.decode(), entity_id.decode()


def unpack_caps(data: bytes) -> Caps:
    """Caps in their packed form. Raises ValueError for a format this release cannot read."""
    form, spend_limits, control, windows, *_is_system = msgpack.unpackb(data)
    if form != layout.FORMAT:
        raise ValueError(f"caps are packed in format {form}")
    return Caps(_list(spend_limits), control, _list(windows))


def _list(value: Any) -> list[int] | None:
    return None if value is False else list(value)


def unpack_windows(data: bytes) -> list[Window]:
    """Window counters in their packed form. Raises ValueError for a format this release cannot read."""
    form, *flat = msgpack.unpackb(data)
    if form != layout.FORMAT or len(flat) % len(Window._fields):
        raise ValueError(f"{len(flat)} elements of windows in format {form}")
    return [Window(*flat[at : at + len(Window._fields)]) for at in range(0, len(flat), len(Window._fields))]


def unpack_hold(data: bytes) -> OpenHold:
    """An open hold in its packed form: [generation, sequence number, receipt]. Raises ValueError
    for a receipt in a format this release cannot read."""
    gen, seq, receipt = msgpack.unpackb(data, raw=True)
    form, _made_ms, expires_ms, *_ = msgpack.unpackb(receipt, raw=True)
    if form != layout.FORMAT:
        raise ValueError(f"a hold's receipt in format {form}")
    return OpenHold(expires_ms, receipt, gen, seq)
