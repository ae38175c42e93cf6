"""The newest published clients against a running sidecar: holds, overages, loose grants, batches and what
events tell of the balances that paid."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tests.run.harness import wait_for

from .newer import AutumnPython, new_id

MINUTE_MS = 60_000


def created(strict: Any, **fields: Any) -> str:
    """A new customer with 10 messages; its id."""
    customer_id = new_id()
    strict.call("customers.get_or_create", customer_id=customer_id, **fields)
    return customer_id


def messages(strict: Any, customer_id: str) -> tuple[Any, Any, Any]:
    """(granted, remaining, usage)."""
    shown = strict.call("customers.get", customer_id=customer_id)["balances"]["messages"]
    return shown["granted"], shown["remaining"], shown["usage"]


def hold(strict: Any, customer_id: str, units: int, **fields: Any) -> str:
    """Takes a hold that is granted; its id."""
    lock_id = new_id("lock")
    check = strict.call(
        "check", customer_id=customer_id, feature_id="messages", required_balance=units,
        lock={"lock_id": lock_id, "enabled": True, **fields},
    )
    assert check["allowed"] is True
    return lock_id


def test_holds(strict: Any) -> None:
    c = created(strict)
    confirmed = hold(strict, c, 4)
    assert messages(strict, c)[1] == 6
    assert strict.call("balances.finalize", lock_id=confirmed, action="confirm")["success"] is True
    assert messages(strict, c) == (10, 6, 4)
    assert strict.refused("balances.finalize", lock_id=confirmed, action="release") == (409, "lock_already_finalized")

    released = hold(strict, c, 6)
    assert strict.call("check", customer_id=c, feature_id="messages")["allowed"] is False
    assert strict.call("balances.finalize", lock_id=released, action="release")["success"] is True
    assert messages(strict, c) == (10, 6, 4)

    cheaper, dearer = hold(strict, c, 3), hold(strict, c, 1)
    strict.call("balances.finalize", lock_id=cheaper, action="confirm", override_value=1)
    assert messages(strict, c) == (10, 4, 6)
    strict.call("balances.finalize", lock_id=dearer, action="confirm", override_value=3)
    assert messages(strict, c) == (10, 2, 8)

    too_much = {"lock_id": new_id("lock"), "enabled": True}
    check = strict.call("check", customer_id=c, feature_id="messages", required_balance=3, lock=too_much)
    assert (check["allowed"], check["balance"]["remaining"]) == (False, 2)
    assert strict.refused("balances.finalize", lock_id=too_much["lock_id"], action="confirm") == (404, "lock_not_found")


def test_holds_taken_by_tracks(strict: Any) -> None:
    if not strict.tracks_holds:
        return  # the client's own track has no lock
    c, first, second = created(strict), new_id("lock"), new_id("lock")
    asked = {"customer_id": c, "feature_id": "messages"}
    held = strict.call("track", **asked, value=3, lock={"lock_id": first, "enabled": True})
    assert (held["value"], held["balance"]["remaining"]) == (3, 7)
    strict.call("batch_track", request=[{**asked, "value": 2, "lock": {"lock_id": second, "enabled": True}}])
    assert messages(strict, c)[1] == 5
    strict.call("balances.finalize", lock_id=first, action="confirm", override_value=1)
    strict.call("balances.finalize", lock_id=second, action="release")
    assert messages(strict, c) == (10, 9, 1)


def test_what_holds_cannot_do_is_refused(strict: Any) -> None:
    c = created(strict)
    partly = {"lock_id": new_id("lock"), "enabled": True, "overage_behavior": "cap"}
    asked = {"customer_id": c, "feature_id": "messages", "required_balance": 12, "lock": partly}
    assert strict.refused("check", **asked) == (400, "not_supported")
    lock_id = hold(strict, c, 4)
    noted = {"lock_id": lock_id, "action": "confirm", "properties": {"m": "x"}}
    assert strict.refused("balances.finalize", **noted) == (400, "not_supported")
    assert messages(strict, c)[1] == 6


def test_holds_and_resets_follow_the_clock(strict: Any) -> None:
    c = created(strict)
    now_ms = int(strict.call("customers.get", customer_id=c)["created_at"])
    left = hold(strict, c, 4, expires_at=now_ms + MINUTE_MS)
    moved = strict.call("customers.advance_test_clock", customer_id=c, frozen_time=now_ms + 2 * MINUTE_MS)
    assert moved == {"customer_id": c, "frozen_time": now_ms + 2 * MINUTE_MS, "status": "ready"}
    assert strict.refused("balances.finalize", lock_id=left, action="confirm") == (410, "lock_expired")
    assert messages(strict, c) == (10, 10, 0)

    strict.call("track", customer_id=c, feature_id="messages", value=7)
    resets_at = int(strict.call("check", customer_id=c, feature_id="messages")["balance"]["next_reset_at"])
    strict.call("customers.advance_test_clock", customer_id=c, frozen_time=resets_at)
    assert messages(strict, c) == (10, 10, 0)
    assert strict.refused("customers.advance_test_clock", customer_id=c, frozen_time=now_ms) == (400, "invalid_inputs")
    assert strict.refused("customers.advance_test_clock", customer_id=new_id(), frozen_time=resets_at * 2) == (404, "customer_not_found")


def test_checks_that_spend_and_overages(strict: Any) -> None:
    c = created(strict)
    spent = strict.call("check", customer_id=c, feature_id="messages", required_balance=4, send_event=True)
    assert (spent["allowed"], spent["balance"]["remaining"], spent["required_balance"]) == (True, 6, 4)
    capped = strict.call("track", customer_id=c, feature_id="messages", value=7, overage_behavior="cap")
    assert (capped["balance"]["remaining"], capped["balance"]["usage"]) == (0, 10)
    over = strict.call("track", customer_id=c, feature_id="messages", value=5, overage_behavior="overflow")
    assert (over["value"], over["balance"]["remaining"], over["balance"]["usage"]) == (5, 0, 15)
    strict.call("track", customer_id=c, feature_id="messages", value=-6)
    assert messages(strict, c) == (10, 1, 9)


def test_loose_grants(strict: Any) -> None:
    c, asked = created(strict), {"feature_id": "messages"}
    asked["customer_id"] = c
    gift = {**asked, "balance_id": "gift"}
    made = strict.call(
        "balances.create", **gift, included_grant=50, reset={"interval": "week"},
        rollover={"max": 20, "duration": "month", "length": 1},
    )
    assert made["success"] is True
    assert messages(strict, c) == (60, 60, 0)
    assert strict.call("balances.update", **gift, remaining=30)["success"] is True
    assert messages(strict, c) == (60, 40, 20)
    strict.call("balances.update", **gift, add_to_balance=5)
    assert messages(strict, c)[1] == 45
    strict.call("balances.update", **gift, included_grant=100)
    assert messages(strict, c)[0] == 110
    strict.call("balances.update", **asked, usage=0)
    assert messages(strict, c)[2] == 0
    strict.call("balances.create", customer_id=c, feature_id="images", unlimited=True)
    assert strict.call("check", customer_id=c, feature_id="images", required_balance=10**6)["balance"]["unlimited"] is True
    assert strict.refused("balances.create", **gift, included_grant=1)[0] in (400, 409)
    if strict.lists_balances:
        listed = strict.call("balances.list", **asked)
        assert (listed["has_more"], listed["next_cursor"]) == (False, None)
        parts = {part["id"]: part for part in listed["list"]}
        assert (parts["gift"]["plan_id"], parts["gift"]["included_grant"], parts["gift"]["status"]) == (None, 100, "active")
        assert (parts["gift"]["customer_id"], parts["gift"]["entity_id"], parts["gift"]["rollovers"]) == (c, None, [])
        assert {part["plan_id"] for part in parts.values()} == {None, "free"}
        assert {part["feature_id"] for part in strict.call("balances.list", customer_id=c)["list"]} == {
            "messages", "images", "usd_credits", "notifications"
        }
        first = strict.call("balances.list", **asked, limit=1)
        rest = strict.call("balances.list", **asked, limit=1, start_cursor=first["next_cursor"])
        assert (first["has_more"], rest["has_more"], rest["next_cursor"]) == (True, False, None)
        assert first["list"] + rest["list"] == listed["list"]
        assert [part["id"] for part in strict.call("balances.list", **asked, plan_id="free")["list"]] != ["gift"]
    assert strict.call("balances.delete", **gift)["success"] is True
    assert messages(strict, c)[0] == 10
    assert strict.refused("balances.delete", **gift)[0] == 404


def test_what_rolled_over_is_listed_with_its_balance(strict: Any) -> None:
    if not strict.lists_balances:
        return  # the client has no such call
    c = created(strict)
    gift = {"customer_id": c, "feature_id": "images", "balance_id": "gift"}
    rollover = {"max": 20, "duration": "month", "length": 1}
    strict.call("balances.create", **gift, included_grant=50, reset={"interval": "week"}, rollover=rollover)
    asked = {"customer_id": c, "feature_id": "images"}
    resets_at = next(part for part in strict.call("balances.list", **asked)["list"] if part["id"] == "gift")["reset"]["resets_at"]
    strict.call("customers.advance_test_clock", customer_id=c, frozen_time=int(resets_at))
    parts = {part["id"]: part for part in strict.call("balances.list", **asked)["list"]}
    assert [(kept["granted"], kept["balance"]) for kept in parts.pop("gift")["rollovers"]] == [(20, 20)]
    assert [part["rollovers"] for part in parts.values()] == [[]]


def test_what_paid_for_an_event(strict: Any) -> None:
    c = created(strict)
    strict.call("balances.create", customer_id=c, feature_id="messages", included_grant=5)
    strict.call("track", customer_id=c, feature_id="messages", value=12)
    strict.call("track", customer_id=c, feature_id="premium_messages", value=3)
    wait_for("the events", lambda: len(strict.call("events.list", customer_id=c)["list"]) == 2)
    credits, both = strict.call("events.list", customer_id=c)["list"]
    assert [(part["feature_id"], part["plan_id"], part["value"]) for part in credits["deductions"]] == [
        ("usd_credits", "free_credits", Decimal("0.3"))
    ]
    paid = {part["plan_id"]: (part["value"], part["reset"]["interval"]) for part in both["deductions"]}
    assert paid == {"free": (10, "month"), None: (2, "one_off")}
    assert all(part["balance_id"] for part in both["deductions"])


def test_batches(strict: Any) -> None:
    c = created(strict)
    items = [
        {"customer_id": c, "feature_id": "messages", "value": 2},
        {"customer_id": c, "feature_id": "no_such"},
        {"customer_id": c, "feature_id": "basic_messages", "value": 100, "properties": {"m": "x"}},
        {"customer_id": c, "feature_id": "messages", "overage_behavior": "overflow"},
        {"customer_id": c, "feature_id": "messages", "value": 10, "overage_behavior": "cap"},
    ]
    assert strict.call("batch_track", request=items)["success"] is True
    assert messages(strict, c) == (10, 0, 10)
    assert strict.call("check", customer_id=c, feature_id="basic_messages")["balance"]["remaining"] == 4


def test_the_client_of_2_0(lenient: AutumnPython) -> None:
    c = new_id()
    lenient.call("customers.create", id=c)
    asked = {"customer_id": c, "feature_id": "messages"}
    spent = lenient.call("check", **asked, required_balance=4, send_event=True)
    assert (spent["allowed"], spent["balance"]["current_balance"]) == (True, 6)
    assert lenient.refused("track", **asked, value=7, overage_behavior="reject") == (400, "insufficient_balance")
    assert lenient.call("track", **asked, value=7, overage_behavior="cap")["balance"]["current_balance"] == 0
