"""Balances as each version shows them, over random buckets: the sums that always hold."""

from __future__ import annotations

from typing import Any

from hypothesis import given, strategies as st

from sidecar.api import balance_views as v12, balance_views_v2 as v2
from sidecar.api.bucket_views import NEVER_ENDS_MS
from sidecar.catalog.model import Feature
from sidecar.catalog.snapshot import Catalog
from sidecar.domain import layout
from sidecar.domain.layout import Archived, Row, Slot

FEATURE = Feature(id="msg", name="Messages", type="single_use", precision=6)
PLAIN = Row(1, 0, 0, 0, -1, 0, 0, 0, 0, 1, "", "plan", 0, 0, 1, 0, 0, "")
CATALOG = Catalog()
amounts = st.integers(0, 10**12)
signed = st.integers(-(10**12), 10**12)


@st.composite
def a_row(draw: Any, no: int) -> tuple[Row, Slot | None]:
    """A bucket as the scripts leave it, and an entity's slot of it."""
    kind = draw(st.sampled_from(["plain", "loose", "rollover", "pay", "prepaid", "shares", "shares_rolled", "unlimited", "own"]))
    granted, balance = draw(amounts), draw(signed)
    row = PLAIN._replace(no=no, granted=granted, balance=balance, interval=draw(st.sampled_from([0, 3, 5])), created_at=no)
    if row.interval:
        row = row._replace(next_reset_at=draw(st.integers(1, 10**13)))
    if draw(st.booleans()):
        row = row._replace(held=draw(signed))
    if kind == "loose":
        return row._replace(plan_id="", balance=draw(st.sampled_from([0, balance]))), None
    if kind == "rollover":
        left = draw(st.integers(0, granted))
        return row._replace(flags=layout.ROLLOVER, balance=left, interval=0, next_reset_at=0, parent=1, expires_at=draw(st.sampled_from([0, 99]))), None
    if kind == "pay":
        return row._replace(flags=layout.USAGE_ALLOWED, purchasable=draw(st.sampled_from([-1, granted]))), None
    if kind == "prepaid":
        return row._replace(flags=layout.PREPAID, prepaid=draw(st.integers(0, granted))), None
    if kind == "own":
        return row._replace(entity_id="e1"), None
    if kind == "unlimited":
        return row._replace(flags=layout.UNLIMITED, balance=-granted, granted=draw(st.integers(0, 3))), None
    count = draw(st.integers(1, 5))
    if kind == "shares":
        over = draw(amounts)
        shares = row._replace(flags=layout.PER_ENTITY, entity_feature="seats", slots=count, over=over, balance=draw(amounts) - over)
        return shares, draw(st.sampled_from([None, Slot(no, balance, row.next_reset_at), Slot(no, balance, row.next_reset_at + 1)]))
    total, mine = draw(amounts), draw(st.integers(0, 10**6))
    shares = row._replace(
        flags=layout.PER_ENTITY | layout.ROLLOVER, entity_feature="seats", granted=0, prepaid=total + mine, balance=total,
        interval=0, next_reset_at=0, parent=1, slots=count, held=0,
    )
    return shares, draw(st.sampled_from([None, Slot(no, mine // 2, 0, mine)]))


@st.composite
def a_view(draw: Any) -> tuple[list[Row], list[Slot] | None, Archived]:
    pairs = [draw(a_row(no)) for no in range(1, draw(st.integers(0, 6)) + 1)]
    rows = sorted((row for row, _ in pairs), key=layout.spending_key)
    left = draw(st.sampled_from([Archived(), Archived(2, 700, 300), Archived(1, 10**12, 10**12)]))
    slots = [slot for _, slot in pairs if slot is not None]
    return rows, draw(st.sampled_from([None, slots])), left


@given(a_view())
def test_included_minus_usage_is_the_balance_at_1_2(view: tuple[list[Row], list[Slot] | None, Archived]) -> None:
    shown = v12.balance_v12(FEATURE, *view)
    for part in [shown, *shown.get("breakdown", ())]:
        assert part["included_usage"] - part["usage"] == part["balance"]
    archived = view[2]
    if archived.count and not shown["unlimited"]:
        assert shown["included_usage"] * 10**6 >= archived.granted


@given(a_view())
def test_granted_and_purchased_are_current_and_usage_at_2_0(view: tuple[list[Row], list[Slot] | None, Archived]) -> None:
    shown = v2.balance_v20(FEATURE, *view)
    if shown is None:
        assert not view[0] and not view[2].count
        return
    for part in [shown, *shown["breakdown"]]:
        if part.get("unlimited") or part is not shown and _unlimited(part, view[0]):
            continue
        assert part["granted_balance"] + part["purchased_balance"] == part["current_balance"] + part["usage"]


@given(a_view())
def test_versions_agree(view: tuple[list[Row], list[Slot] | None, Archived]) -> None:
    rows, slots, archived = view
    old, middle = v12.balance_v12(FEATURE, *view), v2.balance_v20(FEATURE, *view)
    new = v2.balance_v21(FEATURE, rows, CATALOG, slots, archived)
    assert (middle is None) == (new is None)
    if middle is None or new is None:
        return
    assert (middle["current_balance"], middle["usage"], middle["held"]) == (new["remaining"], new["usage"], new["held"])
    assert [entry["id"] for entry in middle["breakdown"]] == [entry["id"] for entry in new["breakdown"]]
    assert len(old["breakdown"]) == len(new["breakdown"])
    if not new["unlimited"]:
        assert (old["included_usage"], old["usage"], old.get("held", 0)) == (new["granted"], new["usage"], new["held"])
        assert new["remaining"] >= old["balance"]
    rolled = [(r["balance"], r["expires_at"]) for r in new.get("rollovers", ())]
    assert rolled == [(r["balance"], r["expires_at"]) for r in old.get("rollovers", ())]
    assert len(rolled) == sum(row.rollover for row in rows)
    if not new["unlimited"]:
        parts = sum(entry["remaining"] for entry in new["breakdown"]) + sum(balance for balance, _ in rolled)
        assert parts == new["remaining"]


def _unlimited(part: dict[str, Any], rows: list[Row]) -> bool:
    return any(v2.bucket_id(row) == part["id"] and row.unlimited for row in rows)


def test_a_used_up_loose_grant_is_left_out_but_counts() -> None:
    used_up = PLAIN._replace(no=2, plan_id="", granted=5 * 10**6)
    month = PLAIN._replace(granted=10 * 10**6, balance=10**7, interval=5, next_reset_at=7)
    shown = v12.balance_v12(FEATURE, [month, used_up])
    assert (shown["included_usage"], shown["usage"], shown["balance"]) == (15, 5, 10)
    assert shown["interval"] == "month" and len(shown["breakdown"]) == 1
    assert v12.balance_v12(FEATURE, [month], None, Archived(1, 5 * 10**6, 0)) == shown, "as when it left the hot state"
    for kept in ({"held": 1}, {"plan_id": "p"}, {"interval": 5, "next_reset_at": 9}, {"balance": -1}, {"flags": layout.CONTINUOUS}):
        assert len(v12.balance_v12(FEATURE, [month, used_up._replace(**kept)])["breakdown"]) == 2


def test_nothing_but_used_up_grants() -> None:
    used_up = PLAIN._replace(no=2, plan_id="", granted=5 * 10**6)
    gone = Archived(1, 5 * 10**6, 0)
    assert v12.balance_v12(FEATURE, [used_up]) == v12.balance_v12(FEATURE, [], None, gone)
    assert v12.balance_v12(FEATURE, [])["interval"] is None
    assert v2.balance_v20(FEATURE, [used_up]) == v2.balance_v20(FEATURE, [], None, gone)
    assert v2.balance_v21(FEATURE, [used_up], CATALOG) == v2.balance_v21(FEATURE, [], CATALOG, None, gone)


def test_rollovers_that_never_end_have_a_number_for_strict_clients() -> None:
    row = PLAIN._replace(flags=layout.ROLLOVER, granted=9 * 10**6, balance=4 * 10**6, parent=7)
    assert v2.balance_v21(FEATURE, [row], CATALOG)["rollovers"] == [  # type: ignore[index]
        {"granted": 9, "balance": 4, "expires_at": NEVER_ENDS_MS}
    ]


def test_rollovers_of_a_view_by_their_end() -> None:
    """An entity's call spends its own first among those that end together."""
    rolled = PLAIN._replace(flags=layout.ROLLOVER, granted=10**6, parent=9)
    shares = rolled._replace(flags=layout.ROLLOVER | layout.PER_ENTITY, entity_feature="seats", granted=0)
    rows = [rolled._replace(no=1, balance=1, expires_at=50), rolled._replace(no=2, balance=2, expires_at=0)]
    rows += [shares._replace(no=3, expires_at=50), shares._replace(no=4, expires_at=20)]
    slots = [Slot(3, 3, 0, 9), Slot(4, 4, 0, 9)]
    balances = [part.balance for part in v2.view_of(rows, slots).rollovers]  # type: ignore[union-attr]
    assert balances == [4, 3, 1, 2]
