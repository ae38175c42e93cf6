"""The rows that a batch touches, as they are in memory while its records are played on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from sidecar.domain import layout

SlotKey = tuple[int, int, str]
"""cid, bucket, entity."""
Place = tuple[int, str, str]
"""cid, feature, entity ('' for the customer)."""
WindowKey = tuple[int, str, str, int, int]
"""cid, feature, entity, interval, anchor."""


class Entry(NamedTuple):
    """A log entry as read: its partition, id and packed record."""

    p: int
    gen: int
    seq: int
    data: bytes


class Customer(NamedTuple):
    """A customer's row, as far as the log has to do with it: its columns as they were read."""

    cid: int
    id: str
    p: int
    applied_version: int
    structure_version: int
    last_ms: int
    log_gen: int
    log_seq: int
    deleted_at: int | None
    next_roll_no: int


SUMS = ("balance", "granted", "prepaid", "slots", "over", "reset_at", "reset_over", "held")
"""The columns of a bucket that usage, resets and holds change."""
PLACE = ("next_reset_at", "archived", "removed_at")
"""Those that say what is to become of it, which SQL finds it by; they change more rarely."""


class Bucket:
    """A bucket while records are played on it. `total` is the balance; for an unlimited one,
    whose row keeps two parts, minus everything used."""

    __slots__ = (
        "cid", "feature_id", "total", "granted", "prepaid", "next_reset_at", "slots", "over", "reset_at",
        "reset_over", "held", "archived", "was_archived", "removed_at", "read", "unlimited", "added", "dirty", "replaced",
    )

    def __init__(self, cid: int, feature_id: str, row: layout.Row, added: bool = False, archived: bool = False):
        self.cid = cid
        self.feature_id = feature_id
        self.archived = self.was_archived = archived
        self.removed_at: int | None = None
        self.added = added
        self.dirty = added
        self.replaced = False
        self._take(row)

    def _take(self, row: layout.Row) -> None:
        self.read = row
        self.unlimited = row.unlimited
        self.total = row.balance - row.granted * layout.USED_HIGH_UNIT if self.unlimited else row.balance
        self.granted = row.granted
        self.prepaid = row.prepaid
        self.next_reset_at = row.next_reset_at
        self.slots = row.slots
        self.over = row.over
        self.reset_at = row.reset_at
        self.reset_over = row.reset_over
        self.held = row.held

    def replace(self, row: layout.Row) -> int:
        """Makes it this row; by how much the balance changes."""
        before = self.total
        self._take(row)
        self.dirty = self.replaced = True
        return self.total - before

    @property
    def no(self) -> int:
        return self.read.no

    @property
    def flags(self) -> int:
        return self.read.flags

    @property
    def item(self) -> int:
        return self.read.item

    @property
    def entity_id(self) -> str:
        return self.read.entity_id

    @property
    def per_entity(self) -> bool:
        return self.read.per_entity

    def columns(self) -> tuple[int, int]:
        """Balance and granted as the row keeps them: of an unlimited bucket the low and the high
        part of what was used, the low part within 0 … 2^52 − 1."""
        if not self.unlimited or self.total > 0:  # never below zero by a script's doing
            return self.total, self.granted if not self.unlimited else 0
        high, low = divmod(-self.total, layout.USED_HIGH_UNIT)
        return -low, high

    def sums(self) -> tuple[int, ...]:
        """The columns SUMS as they stand now."""
        balance, granted = self.columns()
        return balance, granted, self.prepaid, self.slots, self.over, self.reset_at, self.reset_over, self.held

    def place(self) -> tuple[int, bool, int | None]:
        """The columns PLACE as they stand now."""
        return self.next_reset_at, self.archived, self.removed_at

    @property
    def moved(self) -> bool:
        """Whether any of PLACE is not as it was read."""
        return self.next_reset_at != self.read.next_reset_at or self.archived != self.was_archived or self.removed_at is not None

    def row(self) -> layout.Row:
        """The bucket as it stands now."""
        return self.read._replace(next_reset_at=self.next_reset_at, **dict(zip(SUMS, self.sums())))


@dataclass(slots=True)
class Slot:
    """An entity's share of a per-entity bucket, valid while that bucket's reset is at `period`."""

    balance: int
    period: int
    granted: int = 0
    held: int = 0


@dataclass(slots=True)
class Hold:
    """An open hold, by the log entry that made it."""

    entry: tuple[int, int, int]
    expires_ms: int
    receipt: bytes


@dataclass(slots=True)
class Window:
    """What a usage-limit window has counted."""

    start_ms: int
    end_ms: int
    used: int


@dataclass
class Rows:
    """What SQL has of the customers of a batch, as far as the batch touches it."""

    customers: dict[int, Customer] = field(default_factory=dict)
    versions: dict[int, int] = field(default_factory=dict)
    last_ms: dict[int, int] = field(default_factory=dict)
    next_roll: dict[int, int] = field(default_factory=dict)
    buckets: dict[tuple[int, int], Bucket] = field(default_factory=dict)
    slots: dict[SlotKey, Slot] = field(default_factory=dict)
    holds: dict[tuple[int, str], Hold] = field(default_factory=dict)
    """The open ones, by cid and lock id."""
    windows: dict[WindowKey, Window] = field(default_factory=dict)
    caps: dict[Place, bytes] = field(default_factory=dict)
    """Like `returned` and `entities`: those of the customers read whole, and what records say."""
    returned: dict[tuple[int, int, int], bytes] = field(default_factory=dict)
    """By cid and the event's generation and sequence number."""
    entities: dict[tuple[int, str], str] = field(default_factory=dict)
    """The feature of each entity that Redis has."""
    plan_uids: dict[tuple[int, int], int] = field(default_factory=dict)
    precisions: dict[str, int] = field(default_factory=dict)
