"""What each bucket would pay towards a feature, and what limits it: one script call, decoded.

This module knows nothing of HTTP or API versions; quantities are scaled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Sequence

import msgpack

from ..domain import layout
from . import keys, loader, scripts
from .call import of_features, plan_of
from .errors import StoreUnavailable
from .spend import CustomerMissing, EntityMissing

if TYPE_CHECKING:
    from ..catalog.model import Feature
    from ..catalog.snapshot import Catalog
    from .engine import Engine

class Bucket(NamedTuple):
    """A bucket (or an entity's share of one), in units of its feature. `gives` is how many units of
    the feature asked about it would pay of the most that a reject-mode call takes, `floor` how low it
    may go; None for no end. `parent` is
    the bucket that a rollover comes from."""

    feature_id: str
    no: int
    entity_id: str
    plan_id: str
    flags: int
    balance: int
    granted: int
    gives: int | None
    floor: int | None
    expires_at: int
    parent: int

    @property
    def rollover(self) -> bool:
        return bool(self.flags & layout.ROLLOVER)


class Window(NamedTuple):
    """A usage-limit window: interval and anchor by their codes."""

    limit: int
    interval: int
    anchor: int
    start: int
    end: int
    used: int


class Cap(NamedTuple):
    """What is in force for a feature: overage control (-1 for none), the spend limit (None) with the
    overage it looks at, windows; and whether limit and windows are the entity's own."""

    feature_id: str
    control: int
    spend_limit: int | None
    overage: int
    own_spends: bool
    windows: tuple[Window, ...]
    own_windows: bool


class Hold(NamedTuple):
    """An open hold as far as it is about the feature: of which feature, and how much it has."""

    lock_id: str
    feature_id: str
    entity_id: str
    held: int
    expires_at: int


@dataclass(frozen=True)
class Explanation:
    """`allowed` and `reason` are a check's answer for one unit (out_of_range and too_many_entities where
    a check is refused); `accepts` is the largest amount that a
    reject-mode call would take, None for any. `truncated`: there are more entities than were looked
    at. `last_entry` is the customer's last in the log, (generation, sequence number)."""

    now_ms: int
    last_entry: tuple[int, int]
    allowed: bool
    reason: str
    accepts: int | None
    truncated: bool
    buckets: tuple[Bucket, ...]
    caps: tuple[Cap, ...]
    holds: tuple[Hold, ...]


async def explain(
    engine: Engine, catalog: Catalog, customer_id: str, feature: Feature, entity_id: str = ""
) -> Explanation:
    """Explains a feature's balance in a customer's or entity's view, after what was due.

    Raises CustomerMissing, EntityMissing, StoreUnavailable and ReplyLost."""
    p = engine.partition_of(customer_id)
    plan = plan_of((feature.id,), catalog)
    script_keys = (*keys.of_customer(p, customer_id), keys.locks(p, customer_id))
    args = (engine.carry_debts, entity_id, len(plan.fields), *of_features(plan, entity_id, [10**feature.precision]))
    for _ in range(loader.ATTEMPTS_MAX):
        code, *rest = await engine.run(scripts.EXPLAIN, p, script_keys, args)
        if code == b"OK":
            return _explanation(rest, plan.fields)
        if code == b"ENTITY":
            raise EntityMissing(entity_id)
        if await engine.project(customer_id) is None:
            raise CustomerMissing(customer_id)
    raise StoreUnavailable(f"customer {customer_id!r} could not be read")


def _explanation(reply: Sequence[Any], fields: tuple[str, ...]) -> Explanation:
    now_ms, log_gen, log_seq, allowed, reason, accepts, truncated, buckets, caps, holds = reply
    receipts = ((lock_id.decode(), receipt) for lock_id, receipt in zip(holds[::2], holds[1::2]) if receipt)
    return Explanation(
        now_ms=now_ms,
        last_entry=(log_gen, log_seq),
        allowed=bool(allowed),
        reason=reason.decode(),
        accepts=accepts,
        truncated=bool(truncated),
        buckets=tuple(_bucket(*row) for row in buckets),
        caps=tuple(_cap(*row) for row in caps),
        holds=tuple(hold for each in receipts if (hold := _hold(*each, fields)) is not None),
    )


def _bucket(feature_id: bytes, no: int, entity_id: bytes, plan_id: bytes, flags: int, balance: int, granted: int, *rest: Any) -> Bucket:
    if flags & layout.UNLIMITED:  # counts usage in both
        balance = granted = 0
    return Bucket(feature_id.decode(), no, entity_id.decode(), plan_id.decode(), flags, balance, granted, *rest)


def _cap(
    feature_id: bytes, control: int, limit: int | None, overage: int, own_spends: int, windows: list[int], own_windows: int
) -> Cap:
    width = len(Window._fields)
    each = tuple(Window(*windows[at : at + width]) for at in range(0, len(windows), width))
    return Cap(feature_id.decode(), control, limit, overage, bool(own_spends), each, bool(own_windows))


def _hold(lock_id: str, packed: bytes, fields: tuple[str, ...]) -> Hold | None:
    """A hold by its receipt: all of it when it is of the feature explained (`fields` begins with it),
    else what it has of that feature's buckets, or of a credit system's; None if nothing."""
    _gen, _seq, receipt = msgpack.unpackb(packed, raw=True)
    _form, _made_ms, expires_ms, entity_id, of, units, _systems, parts, *_ = msgpack.unpackb(receipt)
    if of == fields[0]:
        return Hold(lock_id, of, entity_id, units, expires_ms)
    for name in fields:
        took = [parts[at + 4] for at in range(0, len(parts), 7) if parts[at] == name]
        if took:
            return Hold(lock_id, name, entity_id, sum(took), expires_ms)
    return None
