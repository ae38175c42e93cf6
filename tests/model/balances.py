"""The balance model's management of balances: setting, regranting, recalculating, deleting.

They look at the feature itself only, and leave rollovers, windows and spend limits alone.
docs/balances.md, "Managing balances".
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.domain.intervals import LIFETIME

from .account import CUSTOMER, Account, Bucket, Part
from .buckets import all_parts
from .core import DONE, Core

NOT_FOUND = "not_found"


@dataclass
class Balances(Core):
    def set_balance(
        self, feature_id: str, what: str, value: int, entity_id: str = CUSTOMER, nos: list[int] | None = None,
    ) -> str:
        """Brings the chosen buckets (by number; None: all of the scope) together to `remaining` or
        `usage`, or adds a value (`add`). Remaining is the signed sum of balances here, so that
        usage = granted − remaining. Unlimited buckets have no balance to set."""
        self.due()
        parts = [p for p in self._finite(feature_id, entity_id) if nos is None or p.bucket.no in nos]
        if not parts:
            return NOT_FOUND
        granted, balance = sum(p.granted for p in parts), sum(p.balance for p in parts)
        _add(parts, {"remaining": value - balance, "usage": granted - value - balance, "add": value}[what])
        return DONE

    def set_grant(self, no: int, granted: int) -> None:
        """Changes a bucket's grant, and its balance (of every entity) by the same amount."""
        self.due()
        bucket = self.account.find(no)
        for part in all_parts(bucket):
            part.change(granted - bucket.granted)
        bucket.granted = granted

    def recalculate(self, feature_id: str, entity_id: str = CUSTOMER) -> None:
        """Where a finite unpriced bucket of the scope is below zero: all of those back to their
        grants, and what was used of them together spent again in order, the rest on the first."""
        self.due()
        parts = [part for part in self._finite(feature_id, entity_id) if not part.bucket.paid]
        if any(part.balance < 0 for part in parts):
            usage = sum(part.granted - part.balance for part in parts)
            for part in parts:
                part.change(part.granted - part.balance)
            _add(parts, -usage)

    def delete_bucket(self, no: int, recalculate: bool = False) -> None:
        """Removes a bucket with its usage and rollovers; or its usage is spent again on what is left
        of the feature in its scope, in order, the rest on the first. With nothing left it stays,
        with a grant of 0 and without resets."""
        self.due()
        bucket = self.account.find(no)
        self.account.buckets.remove(bucket)
        usage = 0 if bucket.unlimited else sum(part.granted - part.balance for part in all_parts(bucket))
        if not recalculate or usage <= 0:
            return
        left = self.account.parts({bucket.feature_id}, bucket.entity_id, self.now)
        unlimited = [part for part in left if part.unlimited]
        if unlimited:
            unlimited[0].change(-usage)
        elif left:
            _add(left, -usage)
        else:
            self._keep_empty(self.account, bucket)

    def _keep_empty(self, account: Account, bucket: Bucket) -> None:
        for part in all_parts(bucket):
            part.change(-bucket.granted)
        bucket.granted, bucket.interval, bucket.next_reset_at, bucket.rolls, bucket.rollovers = 0, LIFETIME, 0, None, []
        account.buckets.append(bucket)

    def _finite(self, feature_id: str, entity_id: str) -> list[Part]:
        return [p for p in self.account.parts({feature_id}, entity_id, self.now) if not p.unlimited]


def _add(parts: list[Part], delta: int) -> None:
    """Takes from parts in order down to zero and the rest from the first; or heals debts, refills up
    to the grants, and puts the rest on the first."""
    if delta < 0:
        rooms = (lambda part: max(0, part.balance),)
    else:
        rooms = (lambda part: max(0, -part.balance), lambda part: max(0, part.granted - part.balance))
    left, sign = abs(delta), -1 if delta < 0 else 1
    for room_of in rooms:
        for part in parts:
            amount = min(left, room_of(part))
            part.change(sign * amount)
            left -= amount
    parts[0].change(sign * left)
