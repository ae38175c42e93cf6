"""The balance model's exact refunds: units of an event back to the very parts that paid them.

docs/balances.md, "Refunds". Plain refunds are tracks of a negative value (walk.refund).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Hashable

from .account import Account
from .core import CONFLICT, DONE, INSUFFICIENT, REFUSED, Core, Event, FeatureAnswer, Share, TrackAnswer
from .receipts import Undoing, rest
from .walk import CAP, REJECT

EVENT_NOT_FOUND = "event_not_found"


@dataclass
class Refunds(Core):
    def refund_of(
        self, event: int, values: dict[str, int] | None = None, mode: str = CAP, key: str | None = None,
        call: Hashable = None,
    ) -> TrackAnswer:
        """Returns units of an event (negative scaled values by feature, None: all that is left), the
        last draw first, never more than was used. Past that: what is left, or in reject mode
        nothing. No window gets room. An event that is a refund has nothing to refund."""
        self.due()
        call = call if call is not None else ("refund_of", event, values and tuple(values.items()), mode)
        return self.once(key, call, TrackAnswer(CONFLICT), lambda: self._refund_of(event, values, mode))

    def left_of(self, event: int) -> dict[str, int]:
        """The units of an event that can still be returned, by feature; none while it is an open hold."""
        found = self.account.events[event]
        is_open = any(hold.event == event for hold in self.account.open_holds.values())
        return {
            share.answer.feature_id: 0 if is_open else share.units - returned
            for share, returned in zip(found.shares, found.returned)
        }

    def _refund_of(self, number: int, values: dict[str, int] | None, mode: str) -> TrackAnswer:
        if number not in self.account.events:
            return TrackAnswer(EVENT_NOT_FOUND)
        event, left = self.account.events[number], self.left_of(number)
        if _is_refund(event) or any(value > 0 for value in (values or {}).values()):
            return TrackAnswer(REFUSED)
        wanted = {f: -values[f] for f in left} if values is not None else left
        if mode == REJECT and (any(wanted[f] > left[f] for f in left) or not any(wanted.values())):
            return TrackAnswer(INSUFFICIENT)
        account = self.account.copy()
        shares = tuple(
            self._return(account, event, share, returned, wanted[f], min(wanted[f], left[f]))
            for f, share, returned in zip(left, event.shares, event.returned)
        )
        returned = tuple(before - share.answer.applied for before, share in zip(event.returned, shares))
        account.events[number] = replace(event, returned=returned)
        written = self.record(account, event.entity_id, shares, is_refund=True)
        self.account = account
        return TrackAnswer(DONE, tuple(share.answer for share in shares), event=written)

    def _return(self, account: Account, event: Event, share: Share, returned: int, wanted: int, units: int) -> Share:
        """Returns units of a share of which some were returned before."""
        after = rest(share.receipt, share.units - returned - units) if units else []
        before = rest(share.receipt, share.units - returned) if returned else [0] * len(after)
        undoing = Undoing(self.catalog, account, event.entity_id, self.now)
        changes = undoing.undo(share.receipt, [a - b for a, b in zip(after, before)])
        told = tuple((*name, delta) for name, delta in changes)
        return Share(FeatureAnswer(share.answer.feature_id, share.answer.held, -wanted, -units, units - wanted, told))


def _is_refund(event: Event) -> bool:
    return event.is_refund or any(share.answer.requested < 0 for share in event.shares)
