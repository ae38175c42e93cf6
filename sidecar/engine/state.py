"""A customer's state as read from Redis."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Sequence

from ..domain import layout
from ..domain.layout import Blob, Row, Slot


@dataclass(frozen=True)
class CustomerState:
    """A customer at one moment. `now_ms` is the script's clock; `features` holds customer-level
    buckets in spending order; `entities` what one entity has of a feature: own buckets and slots."""

    cid: int
    version: int
    log_gen: int
    log_seq: int
    last_ms: int
    now_ms: int
    features: dict[str, tuple[Row, ...]] = field(default_factory=dict)
    entities: dict[tuple[str, str], tuple[tuple[Row, ...], tuple[Slot, ...]]] = field(default_factory=dict)
    entity_features: dict[str, str] = field(default_factory=dict)

    def held(self, feature_id: str) -> list[Row]:
        """The feature's buckets that are not expired, customer-level and of every entity."""
        rows = list(self.features.get(feature_id, ()))
        for (feature, _), (own, _slots) in self.entities.items():
            if feature == feature_id:
                rows.extend(own)
        return [row for row in rows if not row.expires_at or row.expires_at > self.now_ms]


def decode_state(now_ms: int, flat: Sequence[bytes]) -> CustomerState:
    """The state in a hash's fields and values, one after the other."""
    fields = dict(zip(flat[::2], flat[1::2]))
    cid, version, log_gen, log_seq, last_ms, _dead = layout.unpack_header(fields[b"h"])
    features: dict[str, tuple[Row, ...]] = {}
    entities: dict[tuple[str, str], tuple[tuple[Row, ...], tuple[Slot, ...]]] = {}
    entity_features: dict[str, str] = {}
    for name, value in fields.items():
        kind, rest = name[:2], name[2:]
        if kind == b"b:":
            features[rest.decode()] = layout.unpack(value).rows
        elif kind == b"x:":
            feature_id, entity_id = rest.split(b"\0", 1)
            blob: Blob = layout.unpack(value)
            entities[feature_id.decode(), entity_id.decode()] = blob.rows, blob.slots
        elif kind == b"e:":
            entity_features[rest.decode()] = value.decode()
    return CustomerState(cid, version, log_gen, log_seq, last_ms, now_ms, features, entities, entity_features)
