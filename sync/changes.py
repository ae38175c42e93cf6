"""The changes that a log record may carry beside resets and what an event took.

Each is an array that begins with its tag; `change` reads one. Quantities are scaled and signed;
`no` is a bucket's number.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from sidecar.domain import layout

from .fields import Fields, RecordError

CONFIRMED, RELEASED, EXPIRED = 1, 2, 3
"""How a hold ended."""


class BucketAdded(NamedTuple):
    """`+`: a new bucket, as it stands when it is made; a rollover too."""

    feature_id: str
    row: layout.Row


class BucketDropped(NamedTuple):
    """`-`: a bucket that went, its balance at that moment and the overage its period owes."""

    feature_id: str
    no: int
    balance: int
    owed_units: int


class SumsChanged(NamedTuple):
    """`~`: changes of a bucket's counts that no usage made: entities opened and closed, slots set,
    what a reset left of their debts."""

    feature_id: str
    no: int
    balance: int
    granted: int
    slots: int
    over: int


class BucketSet(NamedTuple):
    """`=`: a bucket was set, and is like this now."""

    feature_id: str
    row: layout.Row


class RolloverChanged(NamedTuple):
    """`r`: a rollover was trimmed, joined or given back to. What it was made of changes by
    `granted`; of a rollover per entity that is the sum in `prepaid`."""

    no: int
    balance: int
    granted: int


class SlotSet(NamedTuple):
    """`s`: an entity's share is like this now. Its bucket's sums are told apart."""

    no: int
    entity_id: str
    balance: int
    period: int
    granted: int
    held: int


class SlotChanged(NamedTuple):
    """`sd`: an entity's share of a rollover was joined or given back to: balance and grant change.
    Its bucket's sums are told apart."""

    no: int
    entity_id: str
    balance: int
    granted: int


class HeldChanged(NamedTuple):
    """`hd`: what open holds have of a bucket, or of an entity's share of it."""

    no: int
    entity_id: str
    held: int


class HoldMade(NamedTuple):
    """`h+`: a hold, with what it needs to be undone."""

    lock_id: str
    expires_ms: int
    receipt: bytes


class HoldSettled(NamedTuple):
    """`h-`: a hold ended: `outcome` says how, `final` is what it came to."""

    lock_id: str
    outcome: int
    final: int


class WindowUsed(NamedTuple):
    """`w`: a usage-limit window counted so much. Another `start` than before: a new window."""

    feature_id: str
    entity_id: str
    interval: int
    anchor: int
    start_ms: int
    end_ms: int
    delta: int


class CapsSet(NamedTuple):
    """`c`: the caps in force for a feature, packed as scripts read them; empty for none, and an
    entity's own window counters of it go too."""

    feature_id: str
    entity_id: str
    data: bytes


class EventReturned(NamedTuple):
    """`f`: how much of an event was given back so far, packed."""

    gen: int
    seq: int
    returned: bytes


class OverageCredited(NamedTuple):
    """`o`: of the overage at the end of a bucket's period so many units were given back."""

    no: int
    period_end_ms: int
    units: int


class BucketArchived(NamedTuple):
    """`z`: a used-up bucket left the hot state, or came back."""

    no: int
    archived: bool


class EntityOpened(NamedTuple):
    """`e+`: an entity that Redis now has."""

    entity_id: str
    feature_id: str


class EntityClosed(NamedTuple):
    """`e-`: an entity that Redis no longer has."""

    entity_id: str


class EntityRefused(NamedTuple):
    """`e!`: an entity for which there was no room."""

    entity_id: str
    feature_id: str


class CustomerDeleted(NamedTuple):
    """`x`: the customer left Redis."""


Change = (
    BucketAdded | BucketDropped | SumsChanged | BucketSet | RolloverChanged | SlotSet | SlotChanged
    | HeldChanged | HoldMade | HoldSettled | WindowUsed | CapsSet | EventReturned | OverageCredited | BucketArchived
    | EntityOpened | EntityClosed | EntityRefused | CustomerDeleted
)


def change(value: Any) -> Change:
    """The change in an array. Raises RecordError."""
    fields = Fields(value)
    tag = fields.text()
    reader = _READERS.get(tag)
    if reader is None:
        raise RecordError(f"change {tag!r}")
    found = reader(fields)
    fields.end(f"change {tag!r}")
    return found


def _one_of(value: int, *allowed: int) -> int:
    if value not in allowed:
        raise RecordError(f"{value} is none of {allowed}")
    return value


_READERS: dict[str, Callable[[Fields], Change]] = {
    "+": lambda f: BucketAdded(f.text(), f.row()),
    "-": lambda f: BucketDropped(f.text(), f.natural(), f.whole(), f.natural()),
    "~": lambda f: SumsChanged(f.text(), f.natural(), f.whole(), f.whole(), f.whole(), f.whole()),
    "=": lambda f: BucketSet(f.text(), f.row()),
    "r": lambda f: RolloverChanged(f.natural(), f.whole(), f.whole()),
    "s": lambda f: SlotSet(f.natural(), f.text(), f.whole(), f.natural(), f.natural(), f.whole()),
    "sd": lambda f: SlotChanged(f.natural(), f.text(), f.whole(), f.whole()),
    "hd": lambda f: HeldChanged(f.natural(), f.text(), f.whole()),
    "h+": lambda f: HoldMade(f.text(), f.natural(), f.raw()),
    "h-": lambda f: HoldSettled(f.text(), _one_of(f.whole(), CONFIRMED, RELEASED, EXPIRED), f.whole()),
    "w": lambda f: WindowUsed(
        f.text(), f.text(), f.natural(), _one_of(f.whole(), 0, 1), f.natural(), f.natural(), f.whole()
    ),
    "c": lambda f: CapsSet(f.text(), f.text(), f.raw()),
    "f": lambda f: EventReturned(f.natural(), f.natural(), f.raw()),
    "o": lambda f: OverageCredited(f.natural(), f.natural(), f.natural()),
    "z": lambda f: BucketArchived(f.natural(), bool(_one_of(f.whole(), 0, 1))),
    "e+": lambda f: EntityOpened(f.text(), f.text()),
    "e-": lambda f: EntityClosed(f.text()),
    "e!": lambda f: EntityRefused(f.text(), f.text()),
    "x": lambda f: CustomerDeleted(),
}
