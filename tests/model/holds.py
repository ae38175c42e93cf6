"""The balance model's holds: what is taken under a lock until its price is known.

A hold is an event with a receipt. Finalizing it at F leaves what F alone would have paid, as far as
F is within the hold; more is an ordinary call, and the other sign undoes the hold first.
docs/balances.md, "Holds".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .account import CUSTOMER, Account
from .caps import give_room_back
from .core import DONE, Core, Event, FeatureAnswer, Share
from .receipts import Changes, Undoing, first_reset_after, rest
from .walk import CAP

CONFIRMED, RELEASED, EXPIRED = "confirmed", "released", "expired"
LOCK_NOT_FOUND = "lock_not_found"
LOCK_FINALIZED = "lock_already_finalized"
LOCK_EXPIRED = "lock_expired"
HOLD_MS_MAX = 86_400_000


@dataclass(frozen=True)
class Hold:
    """An open hold: the number of its event, and when it gives everything back."""

    event: int
    expires_at: int


@dataclass(frozen=True)
class FinalizeAnswer:
    """What became of a finalize: done, or what the lock was before (and at which final value); the
    share of its own event, None where it had none to write."""

    status: str
    outcome: str | None = None
    final: int | None = None
    feature: FeatureAnswer | None = None
    event: int | None = None


@dataclass
class Holds(Core):
    def due(self) -> None:
        super().due()
        expired = [(hold.expires_at, lock) for lock, hold in self.account.open_holds.items() if hold.expires_at <= self.now]
        for _, lock_id in sorted(expired):
            self._settle(self.account, lock_id, 0, EXPIRED)

    def expire_holds(self) -> None:
        """What the sweep does: releases every hold whose time has come."""
        self.due()

    def open_hold(self, lock_id: str, event: int, expires_at: int | None) -> None:
        """Puts an event under a lock."""
        expires_at = self.now + HOLD_MS_MAX if expires_at is None else expires_at
        self.account.settled.pop(lock_id, None)
        self.account.open_holds[lock_id] = Hold(event, expires_at)

    def finalize(self, lock_id: str, action: str = "confirm", override: int | None = None) -> FinalizeAnswer:
        """Settles a hold, once: `confirm` at its own value or at `override`, `release` at nothing."""
        self.due()
        if lock_id in self.account.settled:
            outcome, final = self.account.settled[lock_id]
            return FinalizeAnswer(LOCK_EXPIRED if outcome == EXPIRED else LOCK_FINALIZED, outcome, final)
        if lock_id not in self.account.open_holds:
            return FinalizeAnswer(LOCK_NOT_FOUND)
        held = self._event(self.account, lock_id).shares[0].answer.requested
        if action == "release":
            return self._settle(self.account, lock_id, 0, RELEASED)
        return self._settle(self.account, lock_id, held if override is None else override, CONFIRMED)

    def held(self, feature_id: str, entity_id: str = CUSTOMER) -> int:
        """The part of a feature's usage that open holds have, as a scope sees it: what they drew
        from parts that are still there and were not reset since."""
        self.due()
        total = 0
        for lock_id in self.account.open_holds:
            for draw in self._event(self.account, lock_id).shares[0].receipt:
                part = self.account.part(draw.name, self.now)
                if part is None or part.bucket.feature_id != feature_id:
                    continue
                in_view = entity_id == CUSTOMER or part.entity_id in (CUSTOMER, entity_id)
                if in_view and (part.rollover or first_reset_after(part, draw.at) is None):
                    total += draw.amount
        return total

    def with_all_released(self, account: Account) -> Account:
        account = account.copy()
        for lock_id in list(account.open_holds):
            self._settle(account, lock_id, 0, RELEASED)
        return account

    def _event(self, account: Account, lock_id: str) -> Event:
        return account.events[account.open_holds[lock_id].event]

    def _settle(self, account: Account, lock_id: str, final: int, outcome: str) -> FinalizeAnswer:
        """Makes of a hold what `final` would have been, and writes the difference as an event."""
        event = self._event(account, lock_id)
        share, number = event.shares[0], account.open_holds.pop(lock_id).event
        feature_id, held = share.answer.feature_id, share.answer.requested
        account.settled[lock_id] = (outcome, final)
        same_sign = final * held > 0
        kept = min(abs(final), abs(held)) * (1 if held > 0 else -1) if same_sign else 0
        account.events[number] = replace(event, returned=(share.units - max(0, kept),))
        if final == held:
            return FinalizeAnswer(DONE, outcome, final)
        changes = self._undo(account, event, share, kept) if kept != held else []
        paid = share.receipt if kept == held > 0 else ()
        more = self.share(account, feature_id, final - kept, CAP, event.entity_id, paid)
        applied = kept - held + more.answer.applied
        told = tuple((*name, delta) for name, delta in changes) + more.answer.changes
        answer = FeatureAnswer(feature_id, True, final - held, applied, more.answer.left, told)
        written = self.record(account, event.entity_id, (replace(more, answer=answer, undone=kept - held),))
        return FinalizeAnswer(DONE, outcome, final, answer, written)

    def _undo(self, account: Account, event: Event, share: Share, kept: int) -> Changes:
        """Undoes a hold down to the units that are kept; a window that counted them has room again."""
        amounts = rest(share.receipt, kept)
        if share.answer.requested > 0:
            self._room_back(account, share, amounts, share.answer.requested - kept)
        return Undoing(self.catalog, account, event.entity_id, self.now).undo(share.receipt, amounts)

    def _room_back(self, account: Account, share: Share, amounts: list[int], units: int) -> None:
        """Of the feature itself as many units, of a credit system what its buckets get back."""
        undone: dict[str, int] = {}
        for draw, amount in zip(share.receipt, amounts):
            if self.catalog[draw.feature_id].is_system and not draw.is_rollover:
                undone[draw.feature_id] = undone.get(draw.feature_id, 0) + amount
        if not self.catalog[share.answer.feature_id].is_system:
            undone[share.answer.feature_id] = units
        for feature_id, amount in undone.items():
            give_room_back(account, share.counted, feature_id, amount, self.now)
